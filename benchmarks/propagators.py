"""What carries features from a key to the frames after it: copy, flow and LVS, on clips left out of training.

    python -m benchmarks.propagators [--data face|scenes] [--steps N] [--json FILE] [--quick]

`lvs` is trained here, in this process, on all clips but the last few (`train-propagation` does the same on
Ray Train), with the net frozen. Scores: mIoU with true labels by frames from the key; the rank correlation of
the expected deviation with the share of labels that did change; then whole clips through the engine with even
keys, with and without low latency. ms a frame: processor time of everything, the net included, on one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.corpus import data_dir
from vidseg_core.config.recipes import PropagationRecipe
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine import Engine, FrameInput, SegmentState
from vidseg_core.metrics.confusion import ConfusionMatrix
from vidseg_core.models import build_segmenter
from vidseg_core.models.lvs import lvs_metadata, new_lvs
from vidseg_core.models.trainable import weights_bytes
from vidseg_core.propagation import build_propagator
from vidseg_core.scheduling import build_scheduler
from vidseg_core.training.flow_clips import FlowClip, dataset_clips
from vidseg_core.training.propagation import PropagationLoop, PropagationOptions
from vidseg_core.training.propagation_score import score_carried, table

INTERVALS = (5, 10, 12, 25)
GAPS = (1, 2, 3, 5, 10, 20)


@dataclass(frozen=True, kw_only=True)
class Material:
    """A data set, a net for it, and the sizes to learn at."""

    data: str
    net: str
    size: int
    crop: tuple[int, int]
    """Rows and columns."""
    held: int
    """Clips, from the end, that are left out."""


MATERIAL = {
    "scenes": Material(
        data="scenes:videos=12,frames=40,height=128,width=192",
        net="tiny-scenes",
        size=192,
        crop=(128, 192),
        held=4,
    ),
    "face": Material(data="face:{root}/face", net="tiny-face", size=512, crop=(256, 192), held=3),
}
METHODS: dict[str, dict[str, Any]] = {
    "net on every frame": {"name": "copy", "level": "labels", "every": True},
    "copy": {"name": "copy", "level": "features"},
    "flow_warp": {"name": "flow_warp", "level": "features"},
    "flow_warp, labels": {"name": "flow_warp", "level": "labels"},
    "lvs": {"name": "lvs", "level": "features"},
    "lvs, low latency": {"name": "lvs", "level": "features", "delay": 3},
}


def clips_of(material: Material, root: Path | None) -> list[FlowClip]:
    """All clips; labels of other classes than the net's are left out."""
    dataset, net = open_dataset(material.data.format(root=root)), build_segmenter(material.net)
    keeps = tuple(net.class_names) == tuple(dataset.class_names)
    clips = dataset_clips(dataset, "all", material.size, 120)
    return [clip if keeps else replace(clip, labels_THW=None) for clip in clips]


def train(material: Material, clips: list[FlowClip], steps: int, folder: Path) -> str:
    """The weights' file."""
    net = build_segmenter(material.net)
    recipe = PropagationRecipe(height=material.crop[0], width=material.crop[1], steps=steps, batch=4)
    options = PropagationOptions(folder=folder, save_every=10**9, log_every=max(1, steps // 10))
    loop = PropagationLoop(new_lvs(net), clips, recipe, options, net, watch=print)
    loop.run()
    path = folder / "lvs.safetensors"
    path.write_bytes(weights_bytes(loop.weights(), net.class_names, **lvs_metadata(loop.net.facts)))
    return str(path)


def through_engine(
    material: Material, clips: list[FlowClip], weights: str, method: dict[str, Any], interval: int
) -> tuple[float, float]:
    """mIoU over all frames of all clips, and processor time a frame in ms."""
    options = {key: value for key, value in method.items() if key not in ("delay", "every")}
    options |= {"weights": weights} if method["name"] == "lvs" else {}
    if method["name"] == "lvs":
        del options["level"]  # it has one
    net = build_segmenter(material.net)
    engine = Engine(
        net,
        build_scheduler("every") if "every" in method else build_scheduler("fixed", interval=interval),
        build_propagator(**options),
        sides="one",
        delay=method.get("delay"),
    )
    counts, frames, started = ConfusionMatrix(len(net.class_names)), 0, time.process_time()
    rows: list[Any] = []
    for clip in clips:
        state = SegmentState.new(0, clip.name)
        for number, frame_HW3 in enumerate(clip.frames_THW3):
            frame = FrameInput(frame_index=number, pts_s=0.0, is_corrupt=False, frame_HW3=frame_HW3)
            rows += engine.step([state], [frame])[0]
            frames += 1
    spent_s = time.process_time() - started
    truths = [labels_HW for clip in clips if clip.labels_THW is not None for labels_HW in clip.labels_THW]
    for row, labels_HW in zip(rows, truths, strict=True):
        counts.update(row.labels_HW, labels_HW)
    return counts.mean_iou(), 1000.0 * spent_s / frames


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=tuple(MATERIAL), default="scenes")
    parser.add_argument("--folder", help="the folder of real material ($VIDSEG_DATA)")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="30 steps, one interval")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    material = MATERIAL[options.data]
    clips = clips_of(material, data_dir(options.folder))
    learn, held = clips[: -material.held], clips[-material.held :]
    with tempfile.TemporaryDirectory() as scratch:
        weights = train(material, learn, 30 if options.quick else options.steps, Path(scratch))
        scores, ranks = score_carried(weights, build_segmenter(material.net), held, GAPS, device="cpu")
        print(
            f"\n{material.net}, left out: {', '.join(clip.name for clip in held)}\n{table(scores, ranks)}\n"
        )
        rows = []
        intervals = INTERVALS[:1] if options.quick else INTERVALS
        print(f"{'mIoU (ms a frame), key every':<28}" + "".join(f"{interval:>14}" for interval in intervals))
        for name, method in METHODS.items():
            found = [through_engine(material, held, weights, method, interval) for interval in intervals]
            print(f"{name:<28}" + "".join(f"{miou:>7.3f} ({ms:4.0f})" for miou, ms in found))
            rows += [
                {"method": name, "interval": interval, "miou": miou, "ms": ms}
                for interval, (miou, ms) in zip(intervals, found, strict=True)
            ]
    if options.json:
        found = {"gaps": [asdict(s) for s in scores], "ranks": [asdict(r) for r in ranks], "clips": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
