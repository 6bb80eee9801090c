"""Interpolation mIoU by gap and cost per pair: copy, DIS, DIS as the engine chains it, and tiny-flow.

    python -m benchmarks.flow [--json FILE] [--data DIR] [--weights FILE] [--stride N] [--chained] [--all]

A key's labels are carried over 1 to 30 frames to a frame whose labels are known. The clips are those that
tiny-flow never saw (`HELD_OUT`, as in recipes/tiny-flow.yaml) and generated scenes of other seeds; `--all`
adds the clips it was trained on, in a table of their own. Flow is computed at 256 pixels and labels are
carried at their own size, as in a job. Score: IoU of each class from one confusion matrix per clip and gap,
mean over classes, then mean over clips. The face clips' labels come from landmarks: read "agreement with the
landmark labels". `ms/pair` is CPU time on one thread.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import torch

from benchmarks.corpus import data_dir
from benchmarks.two_sided import Clip, face_clips, folder_clips
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scenes import Scene
from vidseg_core.models.flow.registry import build_flow_net
from vidseg_core.propagation import DisFlow, FlowEstimator
from vidseg_core.propagation.net_flow import NetFlow
from vidseg_core.training.flow_score import COPY, GapScore, mean_by_gap, score_clip, table

GAPS = (1, 5, 10, 20, 30)
JUDGED = (5, 10, 20)
NET = "tiny-flow"
HELD_OUT = (
    "liveportrait_d9",
    "liveportrait_d18",
    "liveportrait_s18",
    "clip_0016E5_15hz",
    "dog",
    "motocross-jump",
)
SCENE_SEEDS = (9001, 9002, 9003)


def scene_clips() -> Iterator[Clip]:
    """Generated clips whose seeds no training uses."""
    for seed, motion in zip(SCENE_SEEDS, ("mixed", "calm", "fast"), strict=True):
        config = SceneConfig(height=192, width=256, frames=90, seed=seed, cuts=0, motion=motion)
        drawn = list(Scene(config))
        yield Clip(
            name=f"scene-{motion}",
            classes=len(Scene.class_names),
            frames=[frame.frame_HW3 for frame in drawn],
            labels=[frame.labels_HW for frame in drawn],
        )


def real_clips(root: Path | None, unseen: bool) -> Iterator[Clip]:
    """The labelled clips of the data folder that were, or were not, left out of training."""
    if root is None:
        return
    for source in (face_clips, folder_clips):
        for clip in source(root):
            if (clip.name in HELD_OUT) == unseen:
                yield clip


def measure(clips: Iterator[Clip], weights: str | None, stride: int, chained: bool) -> list[GapScore]:
    methods: dict[str, FlowEstimator] = {
        "dis": DisFlow(chained=False),
        "dis chained": DisFlow(chained=True),
        NET: NetFlow(NET, weights=weights),
    }
    if chained:
        methods[f"{NET} chained"] = NetFlow(NET, weights=weights, chained=True)
    scores: list[GapScore] = []
    for clip in clips:
        scored = score_clip(clip.name, clip.frames, clip.labels, methods, gaps=GAPS, stride=stride)
        print(f"\n{clip.name}, {len(clip.frames)} frames\n{table(scored)}", flush=True)
        scores += scored
    return scores


def verdict(scores: Sequence[GapScore]) -> str:
    """Does the net beat copy at the gaps that count, on the mean and clip by clip?"""
    means = mean_by_gap(scores)
    at = {(score.clip, score.method, score.gap): score.miou for score in scores}
    lines = []
    for gap in (gap for gap in JUDGED if (NET, gap) in means):
        gain = means[NET, gap][0] - means[COPY, gap][0]
        below_dis = means[NET, gap][0] - means["dis", gap][0]
        here = sorted({clip for clip, _, g in at if g == gap})
        wins = sum(at[clip, NET, gap] > at[clip, COPY, gap] for clip in here)
        lines.append(
            f"gap {gap}: {NET} {'beats' if gain > 0 else 'DOES NOT BEAT'} copy by {100 * gain:+.1f} points "
            f"(ahead on {wins} of {len(here)} clips), against plain DIS {100 * below_dis:+.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Flow nets against copy and DIS, by gap.")
    parser.add_argument("--json", help="write the raw rows to this file")
    parser.add_argument("--data", help="folder with face, davis2016 and camvid (default: $VIDSEG_DATA)")
    parser.add_argument("--weights", help="other weights of tiny-flow (from vidseg train-flow)")
    parser.add_argument("--stride", type=int, default=15, help="frames from key to key (default 15)")
    parser.add_argument("--all", action="store_true", help="also the clips that were trained on")
    parser.add_argument(
        "--chained", action="store_true", help="also tiny-flow chained as the engine chains DIS"
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    parameters = sum(weight.numel() for weight in build_flow_net(NET).net.parameters())
    print(f"{NET}: {parameters / 1e6:.2f} M parameters")
    root = data_dir(options.data)
    groups = {"unseen real clips": real_clips(root, unseen=True), "unseen generated scenes": scene_clips()}
    if options.all:
        groups["real clips that were trained on"] = real_clips(root, unseen=False)
    rows: list[dict[str, object]] = []
    summaries = []
    for group, clips in groups.items():
        scores = measure(clips, options.weights, options.stride, options.chained)
        if not scores:
            print(f"\n{group}: none here (--data)")
            continue
        summaries.append(f"\n== {group}, mean over clips ==\n{table(scores)}\n{verdict(scores)}")
        rows += [{"group": group, **asdict(score)} for score in scores]
    print("\n".join(summaries))
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
