"""`match` beside flow, on clips that its net has not seen.

    python -m benchmarks.match --nets FOLDER [--data DIR] [--json FILE] [--intervals 12 25 50]
        [--sides one two] [--kinds outdoor face street drawn] [--segmenters] [--frames N]

FOLDER has `fold0.safetensors` and `fold1.safetensors` of `benchmarks.tiny_match`; each clip is filled by the
net that has not seen it. Without --nets the package's own net is measured, which has seen the labelled clips:
then only the drawn scenes are left out. N's output on a key is the clip's label map; with --segmenters it is
that of `tiny-face` on the faces and of `tiny-scenes` on the drawn scenes, and masks are compared with N's own
on every frame. Everything goes through `Engine.step`, as in a job. Score: as in `benchmarks.two_sided`. ms:
processor time a frame.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.corpus import data_dir
from benchmarks.two_sided import Clip, face_clips, folder_clips, mean_iou, propagate
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scenes import Scene
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.models import build_segmenter
from vidseg_core.propagation.match import Match

KINDS = ("outdoor", "face", "street", "drawn")
SEGMENTERS = {"face": "tiny-face", "drawn": "tiny-scenes"}
DRAWN = (9001, 9002, 9003)
LONG = 101
"""Frames that a clip needs for intervals of 50 or more, unless it is drawn."""


@dataclass(frozen=True, kw_only=True)
class Row:
    kind: str
    clip: str
    net: str
    """What stands for N."""
    interval: int
    sides: str
    flow: float
    match: float
    flow_ms: float
    match_ms: float


def drawn(seed: int, frames: int = 90) -> Clip:
    """A scene as the demo draws them, without cuts."""
    scene = Scene(SceneConfig(seed=seed, frames=frames, cuts=0))
    pictures, labels = zip(*((frame.frame_HW3, frame.labels_HW) for frame in scene), strict=True)
    classes = len(scene.class_names)
    return Clip(name=f"drawn-{seed}", classes=classes, frames=list(pictures), labels=list(labels))


def clips_of(root: Path, kinds: Sequence[str]) -> Iterator[tuple[str, int, Clip]]:
    """Kind, fold and clip; folds as in `benchmarks.tiny_match`."""
    if "drawn" in kinds:
        yield from (("drawn", number % 2, drawn(seed)) for number, seed in enumerate(DRAWN))
    if "face" in kinds:
        yield from (("face", number % 2, clip) for number, clip in enumerate(face_clips(root)))
    numbers = {"outdoor": 0, "street": 0}
    if {"outdoor", "street"} & set(kinds):
        for clip in folder_clips(root):
            kind = "outdoor" if clip.classes == 2 else "street"
            if kind in kinds:
                yield kind, numbers[kind] % 2, clip
            numbers[kind] += 1


def as_seen(clip: Clip, name: str) -> Clip:
    """The clip with a net's masks for labels."""
    segmenter = build_segmenter(name)
    net = ChunkedNet(segmenter, level="labels", batch=1, device="cpu")
    labels = [labels_HW for labels_HW, _ in net.run(clip.frames)]
    return replace(clip, labels=labels, classes=len(segmenter.class_names))


def measure(kind: str, clip: Clip, net: str, match: Match, options: argparse.Namespace) -> Iterator[Row]:
    """All rows of one clip."""
    for interval in options.intervals:
        if interval >= 50 and len(clip.frames) < LONG and kind != "drawn":
            continue
        for sides in options.sides:
            found = {}
            for name in ("flow_warp", match):
                began = time.process_time()
                masks, _, _ = propagate(clip, interval, sides, name)
                found[name] = mean_iou(masks, clip), 1e3 * (time.process_time() - began) / len(clip.frames)
            yield Row(
                kind=kind,
                clip=clip.name,
                net=net,
                interval=interval,
                sides=sides,
                flow=found["flow_warp"][0],
                match=found[match][0],
                flow_ms=found["flow_warp"][1],
                match_ms=found[match][1],
            )


def summary(rows: Sequence[Row]) -> str:
    """Means over the clips of a kind, and the worst clip."""
    lines = [
        "kind     N            interval sides clips   flow  match   gain  worst clip        ms flow match"
    ]
    for key in dict.fromkeys((row.kind, row.net, row.interval, row.sides) for row in rows):
        here = [row for row in rows if (row.kind, row.net, row.interval, row.sides) == key]
        flow, match = (float(np.mean([getattr(row, name) for row in here])) for name in ("flow", "match"))
        worst = min(here, key=lambda row: row.match - row.flow)
        flow_ms, match_ms = (np.mean([getattr(r, f"{name}_ms") for r in here]) for name in ("flow", "match"))
        lines.append(
            f"{key[0]:8} {key[1]:12} {key[2]:8} {key[3]:5} {len(here):5}  {flow:.3f}  {match:.3f}  "
            f"{100 * (match - flow):+5.1f}  {100 * (worst.match - worst.flow):+5.1f} {worst.clip:16} "
            f"{flow_ms:5.0f} {match_ms:5.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--intervals", type=int, nargs="+", default=[12, 25, 50])
    parser.add_argument("--sides", nargs="+", choices=("one", "two"), default=["two"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--segmenters", action="store_true")
    parser.add_argument("--frames", type=int, default=101, help="at most so many of a clip")
    options = parser.parse_args()
    root = data_dir(options.data)
    if root is None:
        parser.error("--data: no folder of labelled clips here")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    files = [None if options.nets is None else str(options.nets / f"fold{n}.safetensors") for n in (0, 1)]
    matches = [Match(file) for file in files]
    rows: list[Row] = []
    for kind, fold, clip in clips_of(root, options.kinds):
        clip = replace(clip, frames=clip.frames[: options.frames], labels=clip.labels[: options.frames])
        net = SEGMENTERS.get(kind, "") if options.segmenters else "labels"
        if not net:
            continue
        for row in measure(
            kind, clip if net == "labels" else as_seen(clip, net), net, matches[fold], options
        ):
            print(
                f"{row.clip:20} {row.interval:3} {row.sides}  {row.flow:.3f} -> {row.match:.3f}", flush=True
            )
            rows.append(row)
    print(summary(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
