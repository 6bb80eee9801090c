"""How much V of ETC Eq. 3 leaves of the pixels at which the temporal loss asks for the wrong class.

    python -m benchmarks.covered [--sets scenes faces davis] [--gap N] [--sharpness S ...] [--data DIR]

The wrong ones: their label is not the one that DIS brings there from --gap frames on, because they were
covered or uncovered, or because flow is not exact. Training clips of `benchmarks.temporal`, four pairs of
frames of each. For each sharpness: mean V of the wrong pixels, that of the others, and the share of the wrong
ones in the sum of V. Nothing is trained; seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.clips import SETS, Material, materials
from vidseg_core.config.recipes import TemporalRecipe
from vidseg_core.datasets.records import IGNORE
from vidseg_core.models.flow.layers import backward_warp
from vidseg_core.training.flow_clips import FlowClip
from vidseg_core.training.temporal_loss import FrozenFlow, visible

STRIDE, LAST = 7, 28
"""Frames from pair to pair, and where the last one begins at most."""
Pair = tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]
"""Frames t and t + gap (13HW), flow (12HW); where both labels are known, and where they differ (HW)."""


def pairs(clip: FlowClip, gap: int, flow: FrozenFlow) -> Iterator[Pair]:
    assert clip.labels_THW is not None
    frames_T3HW = torch.from_numpy(clip.frames_THW3).permute(0, 3, 1, 2).float() / 255.0
    for now in range(0, min(len(frames_T3HW) - gap, LAST), STRIDE):
        frame_13HW, other_13HW = frames_T3HW[now : now + 1], frames_T3HW[now + gap : now + gap + 1]
        flow_12HW = flow(frame_13HW, other_13HW)
        labels_HW, brought_HW = clip.labels_THW[now], warped(clip.labels_THW[now + gap], flow_12HW)
        known_HW = (labels_HW != IGNORE) & (brought_HW != IGNORE)
        yield frame_13HW, other_13HW, flow_12HW, known_HW, known_HW & (labels_HW != brought_HW)


def warped(labels_HW: np.ndarray, flow_12HW: torch.Tensor) -> np.ndarray:
    """The label that most of a place's four neighbours have, by their weight."""
    one_hot_HWC = F.one_hot(torch.from_numpy(labels_HW.astype(np.int64)), IGNORE + 1)
    brought_1CHW = backward_warp(one_hot_HWC.permute(2, 0, 1)[None].float(), flow_12HW)
    return brought_1CHW.argmax(1)[0].numpy()


def of_material(material: Material, gap: int, sharpnesses: Sequence[float]) -> list[str]:
    """A line for each sharpness."""
    flow = FrozenFlow(TemporalRecipe(gap=gap), device="cpu", seed=0)
    sums = {sharpness: np.zeros(2) for sharpness in sharpnesses}
    wrong = others = 0
    for clip in material.train:
        for frame_13HW, other_13HW, flow_12HW, known_HW, differ_HW in pairs(clip, gap, flow):
            wrong, others = wrong + differ_HW.sum(), others + (known_HW & ~differ_HW).sum()
            for sharpness, found in sums.items():
                v_HW = visible(frame_13HW, other_13HW, flow_12HW, sharpness)[0].numpy()
                found += v_HW[differ_HW].sum(), v_HW[known_HW & ~differ_HW].sum()
    head = f"{material.name:7s} {100 * wrong / (wrong + others):4.1f} % of pixels are wrong"
    return [
        f"{head}  sharpness {sharpness:4g}: mean V {there / wrong:.2f}, elsewhere {elsewhere / others:.2f}, "
        f"share of the sum {100 * there / (there + elsewhere):.1f} %"
        for sharpness, (there, elsewhere) in sums.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--gap", type=int, default=3, help="frames")
    parser.add_argument("--sharpness", type=float, nargs="+", default=[1.0, 4.4, 10.0, 20.0])
    parser.add_argument("--data")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for material in materials(args.sets, args.data):
        print("\n".join(of_material(material, args.gap, args.sharpness)), flush=True)


if __name__ == "__main__":
    main()
