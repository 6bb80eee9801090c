"""Regions of a frame are lanes (DVSNet sections 3.1 to 3.3): each has its own state, key and path.

Model: a frame of each of V segments becomes V x R crops, which the engine steps in lock step as it steps any
V x R segments; a frame of a segment is final when all of its regions are, and its mask is put together from
their inner parts. Nothing else of engine, scheduler and propagator knows of regions.

Invariants:
- what comes out for a segment depends on its frames, seed and name alone, as in `engine`;
- a region's flow pictures have the scale that the whole frame's would have;
- rows of a region that wait for another region's are in the state: at most as many as may wait there;
- a step that raises has taken no row.

Legend: H, W working size; h, w another size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np

from vidseg_core.config.regions import Crop, RegionsConfig
from vidseg_core.engine.bound import Bound, Measured, bytes_of, measure
from vidseg_core.engine.codec import StateError, has_version, pack, unpack
from vidseg_core.engine.context import Around, Together, arrays_of, check_context, kept_of, seen_pixels
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.frames import FrameInput, FrameResult
from vidseg_core.engine.look import resized_luma
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.state import SegmentState
from vidseg_core.engine.stats import EngineStats
from vidseg_core.scheduling.protocol import Scheduler, WindowScheduler

REGIONS_VERSION = 1001
"""Of stored states; far from the numbers of those of whole frames."""
_AROUND = "around."
_ROW_FIELDS = tuple(item.name for item in fields(FrameResult) if item.name != "labels_HW")


@dataclass(slots=True, kw_only=True)
class RegionStates:
    """State of one segment whose frames have several regions: that of each, row by row of the grid."""

    states: list[SegmentState]
    rows: list[list[FrameResult]] = field(default_factory=list)
    """Of each region the rows that wait for another region's, with masks of the crop."""
    size: tuple[int, int] = (0, 0)
    """(H, W) of the frames; of no size before the first."""
    around: Around = field(default_factory=Around)
    """What N saw around regions."""

    @classmethod
    def new(cls, seed: int, segment: str, count: int) -> RegionStates:
        """The state before the first frame; regions have names of their own, as segments have."""
        states = [SegmentState.new(seed, f"{segment}/{number}") for number in range(count)]
        return cls(states=states, rows=[[] for _ in range(count)])

    @property
    def last_frame_index(self) -> int:
        """Video-wide number of the frame that every region has been stepped over last."""
        return min(state.last_frame_index for state in self.states)

    def to_bytes(self) -> bytes:
        """One object for all regions: versioned, checksummed, no pickle."""
        arrays = {
            f"state.{number}": np.frombuffer(state.to_bytes(), np.uint8)
            for number, state in enumerate(self.states)
        }
        for number, rows in enumerate(self.rows):
            if rows:
                arrays[f"masks.{number}"] = np.stack([row.labels_HW for row in rows])
        around = arrays_of(self.around.settled(self.last_frame_index))
        arrays |= {f"{_AROUND}{name}": kept_Cn for name, kept_Cn in around.items()}
        said = [[[_plain(getattr(row, name)) for name in _ROW_FIELDS] for row in rows] for rows in self.rows]
        return pack(REGIONS_VERSION, {"rows": said, "size": self.size}, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> RegionStates:
        """The state that `to_bytes` stored. Raises StateError for damaged bytes or another version."""
        header, arrays = unpack(REGIONS_VERSION, data)
        try:
            said = header["rows"]
            states = [SegmentState.from_bytes(arrays[f"state.{n}"].tobytes()) for n in range(len(said))]
            masks = [arrays.get(f"masks.{n}", ()) for n in range(len(said))]
            rows = [
                [
                    FrameResult(**dict(zip(_ROW_FIELDS, values, strict=True)), labels_HW=labels_hw)
                    for values, labels_hw in zip(of_region, masks_Thw, strict=True)
                ]
                for of_region, masks_Thw in zip(said, masks, strict=True)
            ]
            height, width = map(int, header["size"])
            kept = {name.removeprefix(_AROUND): a for name, a in arrays.items() if name.startswith(_AROUND)}
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"state of regions is inconsistent: {type(error).__name__}: {error}") from error
        return cls(states=states, rows=rows, size=(height, width), around=Around(kept_of(kept)))


def restored(data: bytes) -> SegmentState | RegionStates:
    """The state of a segment, with regions or without. Raises StateError for damaged bytes."""
    kind = RegionStates if has_version(data, REGIONS_VERSION) else SegmentState
    return kind.from_bytes(data)


class AnyEngine(Protocol):
    """What an engine offers to those who run segments through it, with regions or without."""

    @property
    def net(self) -> ChunkedNet: ...
    @property
    def scheduler(self) -> Scheduler | WindowScheduler: ...
    @property
    def looks_ahead(self) -> bool: ...
    @property
    def stats(self) -> EngineStats: ...
    def bound(self, size: tuple[int, int], measured: Measured | None = None) -> Bound: ...
    def step(self, states: Sequence[Any], frames: Sequence[FrameInput]) -> list[list[FrameResult]]: ...
    def finish(self, states: Sequence[Any]) -> list[list[FrameResult]]: ...


class RegionEngine:
    """An engine for segments whose frames have several regions; its methods are those of `Engine`."""

    def __init__(self, engine: Engine, regions: RegionsConfig) -> None:
        if engine.flows.reads_motion:
            raise ValueError("motion vectors are of whole frames: they do not go with --regions.grid")
        self._engine, self._regions = engine, regions
        check_context(regions, engine.net, reads_low=engine.reads_low, asks_ahead=engine.asks_ahead)
        self._together = Together(engine.net, regions) if regions.context != "none" else None
        if self._together is not None:
            engine.keys = self._together

    @property
    def scheduler(self) -> Scheduler | WindowScheduler:
        """The one for all regions."""
        return self._engine.scheduler

    @property
    def net(self) -> ChunkedNet:
        return self._engine.net

    @property
    def stats(self) -> EngineStats:
        """Counts regions: each is a frame there, or a key."""
        return self._engine.stats

    @property
    def looks_ahead(self) -> bool:
        return self._engine.looks_ahead

    def bound(self, size: tuple[int, int], measured: Measured | None = None) -> Bound:
        """What is kept of a segment at most, at this working size: of all regions, with rows that wait."""
        crops = self._regions.crops(size)
        return of_regions([self._engine.bound(crop.shape, measured, whole=size) for crop in crops], crops)

    def step(self, states: Sequence[RegionStates], frames: Sequence[FrameInput]) -> list[list[FrameResult]]:
        """Advance each state by its frame; for each segment the results that became final, in frame order."""
        if len(states) != len(frames):
            raise ValueError(f"{len(states)} states need as many frames, not {len(frames)}")
        crops = [crop for frame in frames for crop in self._cut(frame)]
        rows = self._engine.step(self._all_of(states, [frame.shape for frame in frames]), crops)
        for state, frame in zip(states, frames, strict=True):
            _share_classes(state.states)
            state.size = frame.shape
        return self._take(states, rows)

    def finish(self, states: Sequence[RegionStates]) -> list[list[FrameResult]]:
        """The segments end here: frames that still wait become final."""
        return self._take(states, self._engine.finish(self._all_of(states, [state.size for state in states])))

    def _all_of(self, states: Sequence[RegionStates], sizes: Sequence[tuple[int, int]]) -> list[SegmentState]:
        """The states of all regions; whose they are is known while they are stepped."""
        if self._together is not None:
            self._together.owners = {
                id(one): (state, number, size)
                for state, size in zip(states, sizes, strict=True)
                for number, one in enumerate(state.states)
            }
        return [one for state in states for one in state.states]

    def _cut(self, frame: FrameInput) -> Iterator[FrameInput]:
        whole = _Whole(frame)
        for crop in self._regions.crops(frame.shape):
            yield FrameInput(
                frame_index=frame.frame_index,
                pts_s=frame.pts_s,
                is_corrupt=frame.is_corrupt,
                picture=_Cut(whole, crop),
                whole=frame.shape,
            )

    def _take(
        self, states: Sequence[RegionStates], rows: Sequence[Sequence[FrameResult]]
    ) -> list[list[FrameResult]]:
        """Let rows of regions wait, and take those of the frames that all regions have."""
        left = iter(rows)
        results = []
        for state in states:
            for waiting in state.rows:
                waiting += next(left)
            whole = min(map(len, state.rows))
            parts = zip(*(waiting[:whole] for waiting in state.rows), strict=True)
            results.append([joined(part, self._regions, state.size) for part in parts])
            state.rows = [waiting[whole:] for waiting in state.rows]
        return results


def _share_classes(states: Sequence[SegmentState]) -> None:
    """After the first undamaged frame, which is key in all regions: they know how much of the whole frame
    each class has. They say the same from then on."""
    shares = [state.class_shares_K for state in states if state.class_shares_K is not None]
    if len(shares) == len(states) and not all(np.array_equal(each, shares[0]) for each in shares):
        areas = np.array([state.area for state in states])
        for state in states:
            state.class_shares_K = areas @ np.stack(shares) / areas.sum()


def of_regions(bounds: Sequence[Bound], crops: Sequence[Crop]) -> Bound:
    """Of a segment, from what is kept of its regions; masks of a region wait for another region's, too."""
    frames = max(bound.frames for bound in bounds)
    waiting = frames * sum(crop.pixels for crop in crops)
    return Bound(frames=frames, bytes=sum(bound.bytes for bound in bounds) + waiting)


def joined(rows: Sequence[FrameResult], regions: RegionsConfig, size: tuple[int, int]) -> FrameResult:
    """One frame of its regions' results, row by row of the grid; `size` (H, W) of the frame.

    What a frame has one of is that of the region whose key is the oldest; `kar` is weighted by pixels.
    """
    crops = regions.crops(size)
    labels_HW = np.empty(size, rows[0].labels_HW.dtype)
    for row, crop in zip(rows, crops, strict=True):
        labels_HW[crop.inner_where] = row.labels_HW[crop.inner_in_crop]
    oldest = min(rows, key=lambda row: (row.key_frame_index, -row.lkd))
    seen = seen_pixels([row.is_key for row in rows], regions, size)
    all_pixels = sum(crop.pixels for crop in crops)
    weighed = sum(row.kar * (crop.pixels / all_pixels) for row, crop in zip(rows, crops, strict=True))
    return FrameResult(
        frame_index=oldest.frame_index,
        pts_s=oldest.pts_s,
        is_key=any(row.is_key for row in rows),
        key_frame_index=oldest.key_frame_index,
        decision_score=max(row.decision_score for row in rows),
        kar=weighed,
        lkd=oldest.lkd,
        is_corrupt=oldest.is_corrupt,
        labels_HW=labels_HW,
        filled_by=oldest.filled_by,
        region_keys=[row.is_key for row in rows],
        region_key_frame_index=[row.key_frame_index for row in rows],
        region_scores=[row.decision_score for row in rows],
        key_share=seen / labels_HW.size,
    )


def measured(state: SegmentState | RegionStates, size: tuple[int, int], regions: RegionsConfig) -> Measured:
    """What this state holds now per pixel, at most of its regions; `size` (H, W) of the frames."""
    if isinstance(state, SegmentState):
        return measure(state, size)
    found = Measured()
    for one, crop in zip(state.states, regions.crops(size), strict=True):
        found = found.most(measure(one, crop.shape))
    around = bytes_of(dict(state.around.settled(state.last_frame_index))) / (size[0] * size[1])
    return replace(found, remembered=found.remembered + around)


class _Whole:
    """A frame that is cut, with its luma at working size, made once for all regions."""

    def __init__(self, frame: FrameInput) -> None:
        self.frame = frame
        self._luma: tuple[tuple[np.ndarray, bool] | None] | None = None

    def luma(self) -> tuple[np.ndarray, bool] | None:
        if self._luma is None:
            found = self.frame.luma()
            self._luma = (None if found is None else (resized_luma(found[0], self.frame.shape), found[1]),)
        return self._luma[0]


class _Cut:
    """The picture of one region."""

    def __init__(self, whole: _Whole, crop: Crop) -> None:
        self._whole, self._crop = whole, crop
        self.shape = crop.shape

    def rgb(self) -> np.ndarray:
        return np.ascontiguousarray(self._whole.frame.frame_HW3[self._crop.where])

    def luma(self) -> tuple[np.ndarray, bool] | None:
        found = self._whole.luma()
        return None if found is None else (np.ascontiguousarray(found[0][self._crop.where]), found[1])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
