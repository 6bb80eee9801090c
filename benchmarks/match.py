"""`match` beside flow, on clips that its net has not seen.

    python -m benchmarks.match --nets FOLDER [--data DIR] [--json FILE] [--intervals 12 25 50]
        [--sides one two] [--kinds outdoor face street drawn] [--ways match checked adapted ...] [--steps N]
        [--seeds 0 1 2] [--clips NAME ...] [--segmenters] [--fold 0|1] [--frames N]

FOLDER has `fold0.safetensors` and `fold1.safetensors` of `benchmarks.tiny_match`; each clip is filled by the
net that has not seen it. Without --nets the package's own net is measured, which has seen the clips of fold 1
(--fold 0 leaves them out) and none of the drawn scenes. N's output on a key is the clip's label map; with
--segmenters it is that of `tiny-face` on the faces and of `tiny-scenes` on the drawn scenes, and masks are
compared with N's own on every frame. `adapted` draws what its net learns from by each of --seeds. `no-far`,
`no-near` and `no-guards` are `checked` with a part of the net or of what is around it switched off, not
trained without it (`without`). Everything goes through `Engine.step`, as in a job. Score: as in
`benchmarks.two_sided`; between: the same without the frames after
the last key, which have a key on one side whatever was asked. ms: processor time a frame.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch

from benchmarks.corpus import data_dir
from benchmarks.two_sided import Clip, LabelsAsNet, face_clips, folder_clips, mean_iou
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scenes import Scene
from vidseg_core.engine import Engine, FrameInput, FrameResult, SegmentState
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.models import build_segmenter
from vidseg_core.models.match import read_match
from vidseg_core.propagation import FlowWarp, asked, self_check
from vidseg_core.propagation.adaptation import adapt
from vidseg_core.propagation.gap import Gap
from vidseg_core.propagation.match import Match
from vidseg_core.scheduling import build_scheduler

KINDS = ("outdoor", "face", "street", "drawn")
WAYS = ("match", "checked", "adapted")
"""Beside flow: the net in every gap; where a self-check chooses it; the same with a net that adapts, too."""
PARTS = ("no-far", "no-near", "no-guards")
SEGMENTERS = {"face": "tiny-face", "drawn": "tiny-scenes"}
DRAWN = (9001, 9002, 9003)
LONG = 101
"""Frames that a clip needs for intervals of 50 or more."""


@dataclass(frozen=True, kw_only=True)
class Row:
    kind: str
    clip: str
    net: str
    """What stands for N."""
    interval: int
    sides: str
    way: str
    miou: float
    between: float
    """mIoU up to the last key."""
    ms: float
    filled: dict[str, int]
    """Frames by what filled them, where that was chosen."""


def drawn(seed: int, frames: int = LONG) -> Clip:
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


def ways_of(file: str | None, options: argparse.Namespace) -> dict[str, Any]:
    """Propagators by name: flow first."""
    made = {
        "flow": FlowWarp,
        "match": lambda: Match(file),
        "checked": lambda: Match(file, self_check=True),
    }
    made |= {
        f"adapted{seed or ''}": partial(Drawn, seed, file, self_check=True, adapt_steps=options.steps)
        for seed in options.seeds
        if "adapted" in options.ways
    }
    made |= {part: lambda part=part: without(part, file) for part in PARTS}
    wanted = ("flow", *options.ways)
    return {name: make() for name, make in made.items() if name in wanted or name.startswith("adapted")}


def without(part: str, file: str | None) -> Match:
    """`checked` with one of `PARTS` switched off.

    `no-far` reads nothing of the keys as they are; `no-near` reads each warped key at the place itself, not
    around it (how alike the best place there is, the net still knows); `no-guards` asks the net about the
    tiniest classes, too.
    """
    net = read_match(file)
    if part == "no-far":
        net.facts = replace(net.facts, far=False)
    if part == "no-near":
        net.near_bias.fill_(-1e4)[len(net.near_bias) // 2] = 0.0
        net.sharpness[0] = -1e4
    return Unguarded(net=net, self_check=True) if part == "no-guards" else Match(net=net, self_check=True)


class Drawn(Match):
    """Draws what its copy learns from by another seed; 0: as in a job."""

    def __init__(self, seed: int, *options: Any, **more: Any) -> None:
        super().__init__(*options, **more)
        self._seed = seed

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        """As `Match`."""

        def reseeded(net: Any, weights: Any, pairs: Any, steps: int, seed: int) -> np.ndarray | None:
            return adapt(net, weights, pairs, steps, seed + 1000 * self._seed)

        with patch.object(self_check, "adapt", reseeded):
            yield from super().fill(gaps)


class Unguarded(Match):
    """Asks the net about classes of a single pixel."""

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        """As `Match`."""
        with patch.object(asked, "TINY", 1):
            yield from super().fill(gaps)


def measure(
    kind: str, clip: Clip, net: str, ways: Mapping[str, Any], options: argparse.Namespace
) -> Iterator[Row]:
    """All rows of one clip."""
    for interval in options.intervals:
        if interval >= 50 and len(clip.frames) < LONG:
            continue
        for sides in options.sides:
            for way, propagator in ways.items():
                if sides == "two" or way in ("flow", "match"):
                    began = time.process_time()
                    rows = filled(clip, interval, sides, propagator)
                    yield Row(
                        kind=kind,
                        clip=clip.name,
                        net=net,
                        interval=interval,
                        sides=sides,
                        way=way,
                        miou=mean_iou([row.labels_HW for row in rows], clip),
                        between=_between(rows, clip, interval),
                        ms=1e3 * (time.process_time() - began) / len(rows),
                        filled=dict(Counter(r.filled_by.partition(" (")[0] for r in rows if r.filled_by)),
                    )


def _between(rows: Sequence[FrameResult], clip: Clip, interval: int) -> float:
    """The score up to the last key."""
    last = (len(rows) - 1) // interval * interval + 1
    cut = replace(clip, frames=clip.frames[:last], labels=clip.labels[:last])
    return mean_iou([row.labels_HW for row in rows[:last]], cut)


def filled(clip: Clip, interval: int, sides: Any, propagator: Any) -> list[FrameResult]:
    """The engine's rows of all frames; the clip's labels stand in for N."""
    net, scheduler = LabelsAsNet(clip), build_scheduler("fixed", interval=interval)
    engine = Engine(net, scheduler, propagator, sides=sides, max_interval=interval)
    state, rows = SegmentState.new(0, clip.name), list[FrameResult]()
    for number, frame_HW3 in enumerate(clip.frames):
        net.place = number
        frame = FrameInput(frame_index=number, pts_s=0.0, is_corrupt=False, frame_HW3=frame_HW3)
        rows += engine.step([state], [frame])[0]
    return rows + engine.finish([state])[0]


def summary(rows: Sequence[Row]) -> str:
    """Means over the clips of a kind; gain in points over flow, and the clip where that is least."""
    lines = [
        "kind     N            interval sides clips way       mIoU   gain  least             between   gain"
        "    ms  filled by"
    ]
    flow = {(r.clip, r.net, r.interval, r.sides): r for r in rows if r.way == "flow"}
    for key in dict.fromkeys((row.kind, row.net, row.interval, row.sides, row.way) for row in rows):
        here = [r for r in rows if (r.kind, r.net, r.interval, r.sides, r.way) == key]
        beside = [flow[r.clip, r.net, r.interval, r.sides] for r in here]
        gains = {r.clip: 100 * (r.miou - of.miou) for r, of in zip(here, beside, strict=True)}
        closed = 100 * np.mean([r.between - of.between for r, of in zip(here, beside, strict=True)])
        least = min(gains, key=lambda clip: gains[clip])
        counts = sum((Counter(row.filled) for row in here), Counter[str]())
        lines.append(
            f"{key[0]:8} {key[1]:12} {key[2]:8} {key[3]:5} {len(here):5} {key[4]:8} "
            f"{np.mean([row.miou for row in here]):.3f}  {np.mean(list(gains.values())):+5.1f}  "
            f"{gains[least]:+5.1f} {least:16} {np.mean([row.between for row in here]):.3f}  {closed:+5.1f}  "
            f"{np.mean([row.ms for row in here]):4.0f}  "
            + ", ".join(f"{way} {count}" for way, count in sorted(counts.items()))
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
    parser.add_argument("--ways", nargs="+", choices=(*WAYS, *PARTS), default=list(WAYS))
    parser.add_argument("--steps", type=int, default=40, help="of an adapted net, at a clip's first two keys")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of an adapted net")
    parser.add_argument("--clips", nargs="+", help="these only")
    parser.add_argument("--segmenters", action="store_true")
    parser.add_argument("--fold", type=int, choices=(0, 1), help="clips of one fold only")
    parser.add_argument("--frames", type=int, default=101, help="at most so many of a clip")
    options = parser.parse_args()
    root = data_dir(options.data)
    if root is None:
        parser.error("--data: no folder of labelled clips here")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folds = [0, 1] if options.fold is None else [options.fold]
    files = {n: options.nets and str(options.nets / f"fold{n}.safetensors") for n in folds}
    ways = {fold: ways_of(file, options) for fold, file in files.items()}
    rows: list[Row] = []
    for kind, fold, clip in clips_of(root, options.kinds):
        clip = replace(clip, frames=clip.frames[: options.frames], labels=clip.labels[: options.frames])
        if options.fold not in (None, fold) or clip.name not in (options.clips or [clip.name]):
            continue
        net = SEGMENTERS.get(kind, "") if options.segmenters else "labels"
        if net:
            rows += measure(kind, clip if net == "labels" else as_seen(clip, net), net, ways[fold], options)
            print(summary([row for row in rows if row.clip == clip.name]).partition("\n")[2], flush=True)
    print(summary(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
