"""The parts `schedulers` and `fidelity`: schedulers through `Engine.step`, two-sided, on regions.

`fixed`, `frame_difference` and the planner of the package; their thresholds are set on the clip itself so
that the share of key pixels is the asked one. Labels as N, or a net as N against itself on every whole frame.

Legend: H, W size of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch

from benchmarks.regions.common import ORACLE_SIZE, Point, Row, at_share, confusion_of, score
from benchmarks.two_sided import VOID, Clip
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.engine import Engine, FrameInput, FrameResult
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.regions import RegionEngine, RegionStates
from vidseg_core.models import build_segmenter
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.scheduling import build_scheduler

GRIDS = (("1x1", 0), ("2x2", 8), ("3x3", 8))
"""Grids and overlaps of frames of 256 pixels: 8 there is 16 of 512."""
HORIZON = 90
TRIES = 9
"""Halvings of a threshold."""


class LabelsOfCrops:
    """A segmenter that knows pictures by their bytes, and says what the labels of their crop are."""

    stride, name, digest, trained, note = 1, "labels", "0" * 64, True, ""

    def __init__(self, clip: Clip, regions: RegionsConfig) -> None:
        self.class_names = tuple(f"class_{number}" for number in range(clip.classes + 1))
        self._known, self._classes = dict[bytes, np.ndarray](), clip.classes
        for frame_HW3, labels_HW in zip(clip.frames, clip.labels, strict=True):
            for crop in regions.crops(labels_HW.shape):
                self._known[frame_HW3[crop.where].tobytes()] = labels_HW[crop.where]

    def features(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        return frames_B3HW

    def head(self, feats: Any) -> torch.Tensor:
        picture_HW3 = (feats[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        labels_HW = self._known.get(picture_HW3.tobytes())
        if labels_HW is None:
            raise RuntimeError("a picture that is no crop of the clip")
        labels_HW = np.where(labels_HW == VOID, self._classes, labels_HW)
        one_hot_HWC = torch.nn.functional.one_hot(torch.from_numpy(labels_HW).long(), self._classes + 1)
        return one_hot_HWC.permute(2, 0, 1)[None].float()

    def to(self, device: Any) -> Self:
        return self


def engine_of(
    net: Any, regions: RegionsConfig, scheduler: Any, *, fill: bool = True, most: int = HORIZON
) -> RegionEngine:
    """`fill` False: for the decisions alone, masks are copied. `most`: the longest interval."""
    engine = Engine(
        net,
        scheduler,
        build_propagator("flow_warp" if fill else "copy"),
        sides="two",
        max_interval=most,
        flow=DisFlow(),
        flow_size=ORACLE_SIZE,
    )
    return RegionEngine(engine, regions)


def run_through(engine: RegionEngine, clip: Clip, regions: RegionsConfig) -> list[FrameResult]:
    """The clip's frames."""
    state, rows = RegionStates.new(0, clip.name, regions.count), list[FrameResult]()
    for number, frame_HW3 in enumerate(clip.frames):
        frame = FrameInput(frame_index=number, pts_s=0.0, is_corrupt=False, frame_HW3=frame_HW3)
        rows += engine.step([state], [frame])[0]
    return rows + engine.finish([state])[0]


def run_clip(
    clip: Clip, regions: RegionsConfig, net: Any, scheduler: Any, *, fill: bool
) -> list[FrameResult]:
    """The clip through an engine of its own; `fill`: as of `engine_of`."""
    return run_through(engine_of(net, regions, scheduler, fill=fill), clip, regions)


def share_of(rows: Sequence[FrameResult]) -> float:
    return float(np.mean([row.key_share or 0.0 for row in rows]))


Schedule = Callable[[float], Any]
KINDS: dict[str, tuple[Schedule, float]] = {
    "frame_difference": (lambda t: build_scheduler("frame_difference", threshold=t), 256.0),
    "planner": (lambda t: build_scheduler("planner", policy="tiny-planner", threshold=t), 20.0),
}
"""Scheduler by threshold, and a threshold above all that make sense."""


def points_of(
    clip: Clip, regions: RegionsConfig, net: Any, kind: str, share: float, worth: Callable[[Any], float]
) -> list[Point]:
    """Two schedules on both sides of the share, as near to it as the scheduler allows."""
    if kind == "fixed":
        factor = sum(crop.pixels for crop in regions.crops(clip.labels[0].shape)) / clip.labels[0].size
        around = {max(1, math.floor(factor / share)), math.ceil(factor / share)}
        chosen = [build_scheduler("fixed", interval=interval) for interval in sorted(around)]
    else:
        made, high = KINDS[kind]
        low, ends = 0.0, dict[bool, float]()
        for _ in range(TRIES):
            tried = (low + high) / 2
            below = share_of(run_clip(clip, regions, net, made(tried), fill=False)) <= share
            ends[below] = tried
            low, high = (low, tried) if below else (tried, high)
        chosen = [made(threshold) for threshold in ends.values()]
    found = [run_clip(clip, regions, net, scheduler, fill=True) for scheduler in chosen]
    return [(share_of(rows), worth(rows)) for rows in found]


def schedulers(clip: Clip, net_name: str | None, shares: Sequence[float]) -> Iterator[Row]:
    """Labels as N, or fidelity to a net on whole frames."""
    truth, size, net = clip.labels, clip.classes + 1, None
    if net_name is not None:
        net = build_segmenter(net_name)
        in_calls, size = ChunkedNet(net, level="labels", batch=1, device="cpu"), len(net.class_names)
        truth = [labels_HW for labels_HW, _ in in_calls.run(clip.frames)]

    def worth(rows: Sequence[FrameResult]) -> float:
        return score(sum(confusion_of(r.labels_HW, truth[r.frame_index], size) for r in rows))  # type: ignore[arg-type]

    scale = max(clip.labels[0].shape) // ORACLE_SIZE
    for grid, overlap in GRIDS:
        regions = RegionsConfig(grid=grid, overlap=overlap * scale)
        for kind in ("fixed", *KINDS):
            for share in shares:
                by = net or LabelsOfCrops(clip, regions)
                points = points_of(clip, regions, by, kind, share, worth)
                yield {
                    "clip": clip.name, "net": net_name or "labels", "grid": grid, "overlap": regions.overlap,
                    "keys": kind, "share": share, "miou": at_share(points, share), "points": points,
                }  # fmt: skip
