"""Regions with keys of their own: what crops cost a net, what exact schedules win, what real ones keep of it.

    python -m benchmarks.regions PART [--clips NAME ...] [--data DIR] [--json FILE] [--frames N]

`agreement`: a net on crops, put together, beside the same net on the whole frame (DVSNet Fig. 10), by grid,
overlap and what is seen around a crop (`AROUND`): mean IoU over the classes that occur, pixels of all crops
in frames, what all crops cost in calls of the frame (process time, interleaved, medians).
`oracle`: the best keys of each region by dynamic programming under one budget of pixels that N sees, labels
as N, DIS from two sides, frames of 256 pixels, a key every third frame at most; beside the best keys of whole
frames and even ones.
`schedulers`: `fixed`, `frame_difference` and the planner through `Engine.step`, two-sided, labels as N; their
thresholds are set on the clip itself so that the share of key pixels is the asked one. `fidelity`: the same
with `--net` as N, against that net on every whole frame, at a working size of 512. `learned`: schedulers that
learned on tables of regions, on clips left out, beside exact ones (`benchmarks.learned_regions`).

Shares of key pixels count overlap. Where a share falls between two schedules (few keys, one price), quality
is interpolated between them. Score: as in `benchmarks.two_sided`.

Legend: H, W size of a frame; h, w that of a crop's inner part.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch

from benchmarks.corpus import data_dir
from benchmarks.two_sided import VOID, Clip, face_clips, folder_clips
from vidseg_core.config.regions import Crop, RegionsConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine import Engine, FrameInput, FrameResult
from vidseg_core.engine.context import place_of
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.regions import RegionEngine, RegionStates
from vidseg_core.episodes.oracle import Curve, curve_of, divide
from vidseg_core.models import build_segmenter
from vidseg_core.models.split import SplitSegmenter
from vidseg_core.models.surroundings import Surroundings, surrounding
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.propagation.chain import Link, Pair, complete
from vidseg_core.propagation.two_sided import prefer_right
from vidseg_core.propagation.warp import warp_error, warp_labels
from vidseg_core.scheduling import build_scheduler

ORACLE_SIZE, NET_SIZE = 256, 512
"""Longest side of frames, pixels."""
STRIDE, HORIZON = 3, 90
SHARES = (0.025, 0.04, 0.10)
GRIDS = (("1x1", 0), ("2x2", 8), ("3x3", 8), ("2x2", 0), ("3x3", 0), ("4x4", 0))
"""Grids and overlaps of frames of 256 pixels: 8 there is 16 of 512."""
OVERLAPS = (0, 16, 32, 64, 128)
AROUND = ("crop", "aligned", "half", "remembered")
"""Ways of seeing what is around a crop; see `OnCrops`."""
TRIES = 9
"""Halvings of a threshold or a price."""

_MEANT = ("miou", "pixels", "cost")
Row = dict[str, Any]
Point = tuple[float, float]
"""Share of key pixels, and what it is worth."""


# --- scores ------------------------------------------------------------------------------------------------


def confusion_of(mask_HW: np.ndarray, labels_HW: np.ndarray, size: int) -> np.ndarray:
    known = labels_HW != VOID
    pairs = labels_HW[known].astype(np.int64) * size + mask_HW[known]
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def score(confusion: np.ndarray) -> float:
    """Mean IoU of the classes that occur in the labels."""
    both, said, true = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    occurs = true > 0
    return float((both[occurs] / (said + true - both)[occurs]).mean())


def at_share(points: Sequence[Point], share: float) -> float:
    """Quality at a share, between the nearest points on both sides of it."""
    below = max((point for point in points if point[0] <= share), default=None)
    above = min((point for point in points if point[0] > share), default=None)
    if below is None or above is None:
        return (below or above or (0.0, math.nan))[1]
    weight = (share - below[0]) / (above[0] - below[0])
    return (1 - weight) * below[1] + weight * above[1]


def sized(clip: Clip, longest: int, most: int | None) -> Clip:
    """The clip at another size, sides a multiple of 8, its first frames."""
    height, width = clip.labels[0].shape
    scale = longest / max(height, width)
    size = max(8, round(width * scale / 8) * 8), max(8, round(height * scale / 8) * 8)
    shrunk = partial(cv2.resize, dsize=size, interpolation=cv2.INTER_AREA)
    nearest = partial(cv2.resize, dsize=size, interpolation=cv2.INTER_NEAREST)
    return Clip(
        name=clip.name,
        classes=clip.classes,
        frames=[shrunk(frame_HW3) for frame_HW3 in clip.frames[:most]],
        labels=[nearest(labels_HW) for labels_HW in clip.labels[:most]],
    )


# --- agreement ---------------------------------------------------------------------------------------------


class OnCrops:
    """A net on the crops of a frame, each by itself, with one way of seeing what is around them."""

    def __init__(self, net: SplitSegmenter, regions: RegionsConfig, way: str) -> None:
        """`way`: `crop` and `aligned` (with that `align`): the crop; `half`: beside it the frame at half its
        size, whose scores count more towards the crop's borders; `remembered`: what layers saw around it."""
        self._net, self._regions, self._way = net, regions, way
        self._around = None
        if way == "remembered":
            own = surrounding(build_segmenter(net.name), regions.align)
            self._net = own
            self._around = Surroundings(
                own, lambda size: [place_of(crop) for crop in regions.crops(size)], regions.overlap
            )

    def remember(self, frame_HW3: np.ndarray) -> Any:
        """What layers keep of the whole frame."""
        if self._around is None:
            return None
        height, width = frame_HW3.shape[:2]
        return self._around.run((0, height, 0, width), (height, width), {}, lambda: self._scores(frame_HW3))[
            1
        ]

    def labels(self, frame_HW3: np.ndarray, kept: Any) -> np.ndarray:
        """The mask of the frame, put together."""
        height, width = frame_HW3.shape[:2]
        labels_HW = np.empty((height, width), np.uint8)
        half_CHW = self._half(frame_HW3) if self._way == "half" else None
        for crop in self._regions.crops((height, width)):
            shown = np.ascontiguousarray(frame_HW3[crop.where])
            if self._around is None:
                scores = self._scores(shown)
            else:
                scores, _ = self._around.run(
                    place_of(crop), (height, width), kept, lambda shown=shown: self._scores(shown)
                )
            if half_CHW is not None:
                own_hw = own_share(crop, (height, width))
                scores = own_hw * scores + (1 - own_hw) * half_CHW[:, *crop.where]
            labels_HW[crop.inner_where] = scores[:, *crop.inner_in_crop].argmax(0).numpy()
        return labels_HW

    def _scores(self, frame_HW3: np.ndarray) -> torch.Tensor:
        frame_13HW = torch.from_numpy(frame_HW3).permute(2, 0, 1)[None].float() / 255.0
        return self._net.head(self._net.features(frame_13HW))[0]

    def _half(self, frame_HW3: np.ndarray) -> torch.Tensor:
        height, width = frame_HW3.shape[:2]
        size = max(8, round(width / 16) * 8), max(8, round(height / 16) * 8)
        scores = self._scores(cv2.resize(frame_HW3, size, interpolation=cv2.INTER_AREA))
        return torch.nn.functional.interpolate(scores[None], (height, width), mode="bilinear")[0]


def own_share(crop: Crop, size: tuple[int, int]) -> torch.Tensor:
    """(h, w): how much the crop's own scores count, 1 from 32 pixels off its inner borders on."""
    rows, columns = (torch.arange(side) + 0.5 for side in crop.shape)
    far = [torch.full((side,), 32.0) for side in crop.shape]
    far[0] = torch.minimum(far[0], rows) if crop.top else far[0]
    far[0] = torch.minimum(far[0], crop.shape[0] - rows) if crop.bottom < size[0] else far[0]
    far[1] = torch.minimum(far[1], columns) if crop.left else far[1]
    far[1] = torch.minimum(far[1], crop.shape[1] - columns) if crop.right < size[1] else far[1]
    return torch.minimum(far[0][:, None], far[1][None]) / 32.0


@torch.inference_mode()
def agreement(clip: Clip, net_name: str, grids: Sequence[str]) -> Iterator[Row]:
    """Every twelfth frame but the first; around a crop is seen what the frame twelve before it had there."""
    net = build_segmenter(net_name)
    assert isinstance(net, SplitSegmenter)
    size = clip.frames[0].shape[:2]
    classes, align = len(net.class_names), net.net.multiple
    for grid, overlap in product(grids, OVERLAPS):
        if RegionsConfig(grid=grid, overlap=overlap).problem((size[0], size[1])):
            continue
        ways = {
            way: RegionsConfig(grid=grid, overlap=overlap, align=1 if way in ("crop", "half") else align)
            for way in AROUND
        }
        nets = {way: OnCrops(net, regions, way) for way, regions in ways.items()}
        whole = OnCrops(net, RegionsConfig(), "crop")
        confusions, seconds = {way: np.zeros((classes, classes), np.int64) for way in ways}, dict[str, list]()
        for before, frame_HW3 in pairwise(clip.frames[::12]):
            labels_HW = _timed(seconds, "whole", whole, frame_HW3, None)
            for way, on_crops in nets.items():
                kept = on_crops.remember(before)
                found_HW = _timed(seconds, way, on_crops, frame_HW3, kept)
                confusions[way] += confusion_of(found_HW, labels_HW, classes)
        for way, regions in ways.items():
            pixels = sum(crop.pixels for crop in regions.crops((size[0], size[1]))) / (size[0] * size[1])
            yield {
                "clip": clip.name, "net": net_name, "grid": grid, "overlap": overlap, "keys": way,
                "pixels": pixels, "miou": score(confusions[way]),
                "cost": float(np.median(seconds[way]) / np.median(seconds["whole"])),
                "ms": 1e3 * float(np.median(seconds[way])),
            }  # fmt: skip


def _timed(seconds: dict[str, list], way: str, net: OnCrops, frame_HW3: np.ndarray, kept: Any) -> np.ndarray:
    started = time.process_time()
    labels_HW = net.labels(frame_HW3, kept)
    seconds.setdefault(way, []).append(time.process_time() - started)
    return labels_HW


# --- exact schedules ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Side:
    """What a key says of one frame, on the inner part of a crop."""

    labels_hw: np.ndarray
    sums_hw: np.ndarray
    """Photometric errors, summed as `prefer_right` does."""
    loss_hw: np.ndarray
    loss: float


class RegionOracle:
    """The values of all intervals of one region; frames of a crop, labels as N."""

    def __init__(self, clip: Clip, crop: Crop, weights: np.ndarray) -> None:
        self._inner, self.pixels, self._weights = crop.inner_in_crop, crop.pixels, weights
        self._grays = [cv2.cvtColor(frame_HW3[crop.where], cv2.COLOR_RGB2GRAY) for frame_HW3 in clip.frames]
        self._labels = [np.ascontiguousarray(labels_HW[crop.where]) for labels_HW in clip.labels]
        self._classes, self.frames = clip.classes, len(clip.frames)
        self.inner_pixels = self._labels[0][self._inner].size
        self._dis, self._zero = DisFlow(), np.zeros(self._grays[0].shape, np.uint8)
        self.keys = range(0, self.frames, STRIDE)
        self.gap: dict[tuple[int, int], float] = {}
        """Loss between two keys, or from the last key up to the end."""
        rights: dict[int, list[_Side]] = {}
        for k in self.keys:
            rights.pop(k, None)
            lefts = self._sides(k, min(self.frames - k - 1, HORIZON), 1)
            for n in self.keys[k // STRIDE + 1 :]:
                if n - k > HORIZON:
                    break
                if n not in rights:
                    rights[n] = self._sides(n, n - k - 1, -1)
                self.gap[k, n] = sum(
                    self._loss((lefts[t - k - 1], t - k), (rights[n][n - t - 1], n - t))
                    for t in range(k + 1, n)
                )
            if self.frames - k - 1 <= HORIZON:
                self.gap[k, self.frames] = sum(side.loss for side in lefts)

    def _sides(self, key: int, reach: int, step: int) -> list[_Side]:
        """Of the frames 1, 2, ... after the key (`step` 1) or before it."""
        places = [key + step * distance for distance in range(1, reach + 1)]
        links = [
            Link(current=self._grays[t], key=self._grays[key], distance=n) for n, t in enumerate(places, 1)
        ]
        complete([links], self._estimate, chained=True)
        return [self._side(key, t, link) for t, link in zip(places, links, strict=True)]

    def _estimate(self, pairs: Sequence[Pair]) -> list[np.ndarray]:
        return self._dis.flow([current for current, _ in pairs], [key for _, key in pairs])

    def _side(self, key: int, t: int, link: Link) -> _Side:
        assert link.flow_hw2 is not None
        labels_hw = warp_labels(self._labels[key], link.flow_hw2)[self._inner]
        error = warp_error(link.current, link.key, link.flow_hw2)
        sums_hw = prefer_right(error, self._zero, right_is_nearer=True) - np.float32(0.5)  # linear in both
        loss_hw = self._weights[self._labels[t][self._inner], labels_hw]
        return _Side(labels_hw, sums_hw[self._inner], loss_hw, float(loss_hw.sum(dtype=np.float64)))

    def _takes_right(self, left: tuple[_Side, int], right: tuple[_Side, int]) -> np.ndarray:
        tie = np.float32(0.5 if right[1] < left[1] else -0.5)
        return left[0].sums_hw - right[0].sums_hw + tie > 0

    def _loss(self, left: tuple[_Side, int], right: tuple[_Side, int]) -> float:
        takes_hw = self._takes_right(left, right)
        return left[0].loss + float(((right[0].loss_hw - left[0].loss_hw) * takes_hw).sum(dtype=np.float64))

    def curve(self) -> Curve:
        """The best schedules by number of keys."""
        longest = min(HORIZON + 1, self.frames)
        closed_TL1, open_TL1 = (np.full((self.frames, longest + 1), -np.inf) for _ in range(2))
        for (k, n), loss in self.gap.items():
            (closed_TL1 if n < self.frames else open_TL1)[k, n - k] = -loss
        most = len(self.keys)
        return curve_of(closed_TL1, open_TL1, longest=longest, most=most, counted=self.frames)

    def confusion(self, keys: Sequence[int]) -> np.ndarray:
        """All frames under these keys."""
        size = self._classes + 1
        total = sum(confusion_of(self._at(k), self._at(k), size) for k in keys)
        for k, n in zip(keys, [*keys[1:], self.frames], strict=True):
            lefts = self._sides(k, n - k - 1, 1)
            rights = self._sides(n, n - k - 1, -1) if n < self.frames else []
            for t in range(k + 1, n):
                mask_hw = lefts[t - k - 1].labels_hw
                if rights:
                    left, right = (lefts[t - k - 1], t - k), (rights[n - t - 1], n - t)
                    mask_hw = np.where(self._takes_right(left, right), right[0].labels_hw, mask_hw)
                total = total + confusion_of(mask_hw, self._at(t), size)
        return np.asarray(total)

    def _at(self, t: int) -> np.ndarray:
        return self._labels[t][self._inner]


def weights_of(clip: Clip) -> np.ndarray:
    """weights[true, said]: what a wrong pixel costs of the clip's mean IoU, to first order."""
    counts = np.bincount(np.concatenate([labels_HW.ravel() for labels_HW in clip.labels]), minlength=256)
    known = np.where(np.arange(256) == VOID, 0, counts)
    each = np.where(known > 0, 1 / np.maximum(known, 1), 0.0) / max(1, (known > 0).sum())
    weights = (each[:, None] + each[None, :]).astype(np.float32)
    weights[VOID], weights[np.diag_indices(256)] = 0.0, 0.0
    return weights


def oracle(clip: Clip) -> Iterator[Row]:
    weights, size = weights_of(clip), clip.labels[0].shape
    for grid, overlap in GRIDS:
        regions = RegionsConfig(grid=grid, overlap=overlap)
        parts = [RegionOracle(clip, crop, weights) for crop in regions.crops(size)]

        def point(schedules: Sequence[Sequence[int]], parts: Sequence[RegionOracle] = parts) -> Point:
            seen = sum(len(keys) * part.pixels for keys, part in zip(schedules, parts, strict=True))
            confusion = sum(part.confusion(keys) for keys, part in zip(schedules, parts, strict=True))
            return seen / (size[0] * size[1] * len(clip.frames)), score(np.asarray(confusion))

        for share in SHARES:
            row: Row = {"clip": clip.name, "grid": grid, "overlap": overlap, "share": share}
            if grid == "1x1":
                keys = share * len(clip.frames)
                even = {max(1, math.floor(keys)), max(1, math.ceil(keys))}
                schedules = [[[i * len(clip.frames) // m for i in range(m)]] for m in sorted(even)]
                yield row | {"keys": "even", "miou": at_share([point(each) for each in schedules], share)}
            points = [point(each) for each in best_near(parts, share)]
            yield row | {"keys": "best", "miou": at_share(points, share), "points": points}


def best_near(parts: Sequence[RegionOracle], share: float) -> list[list[list[int]]]:
    """The best keys of all regions under one budget of pixels, and with one key more."""
    budget = share * sum(part.inner_pixels for part in parts) * parts[0].frames
    costs, curves = [part.pixels for part in parts], [part.curve() for part in parts]
    least = sum(cost * curve.least for cost, curve in zip(costs, curves, strict=True))
    found = []
    for most in (budget, budget + max(costs)):
        keys = divide(curves, max(most, least), costs=costs).keys
        found.append([curve.schedule(m).tolist() for curve, m in zip(curves, keys, strict=True)])
    return found


# --- schedulers --------------------------------------------------------------------------------------------


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


def run_clip(
    clip: Clip, regions: RegionsConfig, net: Any, scheduler: Any, *, fill: bool
) -> list[FrameResult]:
    """The clip through the engine; `fill` False: for the decisions alone, masks are copied."""
    engine = RegionEngine(
        Engine(
            net,
            scheduler,
            build_propagator("flow_warp" if fill else "copy"),
            sides="two",
            max_interval=HORIZON,
            flow=DisFlow(),
            flow_size=ORACLE_SIZE,
        ),
        regions,
    )
    state, rows = RegionStates.new(0, clip.name, regions.count), list[FrameResult]()
    for number, frame_HW3 in enumerate(clip.frames):
        frame = FrameInput(frame_index=number, pts_s=0.0, is_corrupt=False, frame_HW3=frame_HW3)
        rows += engine.step([state], [frame])[0]
    return rows + engine.finish([state])[0]


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
    for grid, overlap in GRIDS[:3]:
        regions = RegionsConfig(grid=grid, overlap=overlap * scale)
        for kind in ("fixed", *KINDS):
            for share in shares:
                by = net or LabelsOfCrops(clip, regions)
                points = points_of(clip, regions, by, kind, share, worth)
                yield {
                    "clip": clip.name, "net": net_name or "labels", "grid": grid, "overlap": regions.overlap,
                    "keys": kind, "share": share, "miou": at_share(points, share), "points": points,
                }  # fmt: skip


# --- what is run -------------------------------------------------------------------------------------------


def scene_clips(frames: int) -> Iterator[Clip]:
    """Drawn scenes, what tiny-scenes has learned from, of seeds that it has not seen."""
    dataset = open_dataset(f"scenes:videos=3,frames={frames},height=288,width=512,seed=900")
    records = [dataset.read(item) for item in dataset.items("all")]
    for name in sorted({record.video_id for record in records}):
        mine = [record for record in records if record.video_id == name]
        labels = [record.labels_HW for record in mine if record.labels_HW is not None]
        yield Clip(
            name=name, classes=len(dataset.class_names), frames=[r.frame_HW3 for r in mine], labels=labels
        )


def clips_of(root: Path | None, names: Sequence[str], scenes: int) -> Iterator[Clip]:
    """`scenes`: of drawn ones so many frames instead; 0: the real ones."""
    if root is None or scenes:
        yield from scene_clips(scenes or 73)
        return
    for source in (face_clips, folder_clips):
        for clip in source(root):
            if not names or clip.name in names:
                yield clip


def rows_of(part: str, clip: Clip, options: argparse.Namespace) -> Iterator[Row]:
    if part == "agreement":
        return agreement(sized(clip, NET_SIZE, options.frames), options.net or "tiny-face", options.grids)
    if part == "oracle":
        return oracle(sized(clip, ORACLE_SIZE, options.frames))
    if part == "schedulers":
        return schedulers(sized(clip, ORACLE_SIZE, options.frames), None, options.shares)
    return schedulers(sized(clip, NET_SIZE, options.frames), options.net or "tiny-face", options.shares)


def all_rows(root: Path | None, options: argparse.Namespace) -> Iterator[Row]:
    """Clip by clip; of what learns from clips, all at once."""
    if options.part != "learned":
        for clip in clips_of(root, options.clips, options.scenes):
            yield from rows_of(options.part, clip, options)
        return
    from benchmarks.learned_regions import learned

    kinds = {"scenes": list(scene_clips(options.scenes or 73))}
    if root is not None:
        found = {"faces": face_clips(root), "outdoor": folder_clips(root)}
        for kind, clips in found.items():
            kinds[kind] = [clip for clip in clips if not options.clips or clip.name in options.clips]
    chosen = {kind: clips for kind, clips in kinds.items() if clips}
    yield from learned(chosen, options.frames, options.shares)


def print_means(rows: Sequence[Row]) -> None:
    """The mean over clips of each combination."""
    by: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        names = ("net", "grid", "overlap", "keys", "share")
        by.setdefault(tuple(row[name] for name in names if name in row), []).append(row)
    for case, found in by.items():
        means = [f"{np.mean([row[name] for row in found]):.3f}" for name in _MEANT if name in found[0]]
        print(f"mean of {len(found)} clips  {'  '.join(map(str, case)):44} {'  '.join(means)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("agreement", "oracle", "schedulers", "fidelity", "learned"))
    parser.add_argument("--clips", nargs="*", default=[], help="names; none: all")
    parser.add_argument("--scenes", type=int, default=0, help="drawn scenes of so many frames instead")
    parser.add_argument("--net", help="N of agreement and fidelity; default: tiny-face")
    parser.add_argument("--grids", nargs="*", default=["2x2", "3x3"], help="of agreement")
    parser.add_argument("--shares", type=float, nargs="*", default=list(SHARES))
    parser.add_argument("--frames", type=int, help="only the first frames of a clip")
    parser.add_argument("--data", help="folder with face, davis2016 and camvid (default: $VIDSEG_DATA)")
    parser.add_argument("--json", help="write the raw rows to this file")
    options = parser.parse_args()
    root = data_dir(options.data)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rows: list[Row] = []
    for row in all_rows(root, options):
        rows.append(row)
        shown = (f"{v:.3f}" if isinstance(v, float) else str(v) for k, v in row.items() if k != "points")
        print("  ".join(shown), flush=True)
    print_means(rows)
    if options.part == "learned":
        from benchmarks.learned_regions import gains

        print("\n".join(gains(rows)))
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
