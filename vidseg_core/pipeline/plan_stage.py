"""Plan: open each video under guard, index it, cut it, and leave out what is committed already.

One Ray task plans a few videos; what comes back is small: facts for the video's row and, for each segment,
the units that are still to be decoded. Resume is this and nothing else: parts are listed, the newest saved
state that no missing part precedes is chosen, and the units before it are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from vidseg_core.config.catalogue import is_of_stream
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.media import (
    DecodeChild,
    DecodeUnit,
    MediaError,
    MediaLimits,
    VideoIndex,
    child_for_this_process,
    slot_bytes_of,
    stamp_of,
    usual_bytes,
    without_motion,
    working_size,
)
from vidseg_core.pipeline.kept import read_row
from vidseg_core.pipeline.patience import patiently
from vidseg_core.pipeline.rows import (
    UnitMessage,
    messages,
    read_unit,
    to_table,
    unit_numbers,
    unit_table,
)
from vidseg_core.pipeline.saved import CursorError, Saved, read_saved
from vidseg_core.plan.excerpt import covered_s, frames_of
from vidseg_core.plan.segments import UNIT_FRAMES, SegmentPlan, UnitPlan, plan_segments, shard_length
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.store.keys import StateKey, kept_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.parts import committed_parts, list_states

_MOST_SPLIT = 4 * UNIT_FRAMES
"""A unit with more frames is decoded in one call, also for several lanes: each call begins at its start."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What of the configuration the plan needs."""

    working_size: int | str
    segment_frames: int
    shard_frames: int
    """At most: fewer where frames are large."""
    single_shards: bool
    """One decode call per shard (several lanes) instead of per unit, where units are short."""
    stream: int | None = None
    """The stream to read; None: the one that is the video."""
    maps_hdr: bool = True
    motion: bool = False
    """Frames bring what the stream says of their motion."""
    regions: RegionsConfig = RegionsConfig()
    kept: frozenset[str] = frozenset()
    """Videos that are done but for parts that are missing (`kept`)."""

    @classmethod
    def of(cls, config: SegmentConfig, kept: frozenset[str] = frozenset()) -> PlanOptions:
        return cls(
            working_size=config.working_size_spec,
            segment_frames=config.segment_frames,
            shard_frames=config.shard_frames,
            single_shards=config.lanes > 1,
            stream=config.media.stream,
            maps_hdr=config.media.hdr == "map",
            motion=is_of_stream(config.propagation.flow),
            regions=config.regions,
            kept=kept,
        )

    def size_of(self, index: VideoIndex) -> tuple[int, int]:
        """(rows, columns) at which the frames of a video are worked on."""
        return working_size(index.width, index.height, self.working_size)

    def length_of(self, index: VideoIndex) -> int:
        """Frames of a shard of this video."""
        return shard_length(self.shard_frames, self._usual_bytes(index))

    def note_of(self, index: VideoIndex) -> str | None:
        """What is special about a video and what is done about it."""
        notes = [index.note(maps_hdr=self.maps_hdr)]
        if self.motion:
            fits = self._usual_bytes(index) <= slot_bytes_of(*self.size_of(index), motion=True)
            notes.append(without_motion(index.codec, is_regular=index.regular, fits=fits))
        return "; ".join(filter(None, notes)) or None

    def unit_of(self, planned: UnitPlan, video: VideoInput, index: VideoIndex) -> DecodeUnit:
        """What a decoder needs for a unit of this video."""
        height, width = self.size_of(index)
        return planned.decode_unit(
            video.uri,
            index,
            height=height,
            width=width,
            stamp=stamp_of(video.size, video.stamp),
            maps_hdr=self.maps_hdr,
            motion=self.motion,
        )

    def _usual_bytes(self, index: VideoIndex) -> int:
        decoded = index.height, index.width
        return usual_bytes(index.pix_fmt, decoded, self.size_of(index), motion=self.motion)


@dataclass(slots=True)
class SegmentWork:
    """One segment: how many parts it has, how many need not be made again, what is left to decode."""

    segment: int
    parts: int
    committed: int
    frames_left: int
    frames_done: int = 0
    """Frames in the parts that need not be made again."""
    keys_done: int = 0
    totals: dict[str, Any] | None = None
    units: list[UnitMessage] = field(default_factory=list)


@dataclass(slots=True)
class VideoWork:
    """What the planner says about one video; ``reason`` is set when it cannot be opened."""

    video_id: str
    uri: str
    reason: str | None = None
    message: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    frames: int = 0
    frames_left: int = 0
    damage: str | None = None
    segments: list[SegmentWork] = field(default_factory=list)
    kept: dict[str, Any] | None = None
    """The video's row, where it was done before."""


class PlanStage:
    """The plan function; small and picklable."""

    def __init__(
        self,
        store: ObjectStore,
        limits: MediaLimits,
        options: PlanOptions,
        child: DecodeChild | None = None,
    ) -> None:
        """No ``child``: the one of the process that this comes to."""
        self._store = store
        self._limits = limits
        self._options = options
        self._child = child

    def with_child(self, child: DecodeChild) -> PlanStage:
        """The same function with a decoder of its own."""
        return PlanStage(self._store, self._limits, self._options, child)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One row per video of ``batch``."""
        for video, _ in messages(batch, VideoInputMessage):
            yield self.plan(VideoInput(**asdict(video)))

    def plan(self, video: VideoInput) -> pa.Table:
        """Index and cut one video; presentation times of the units follow each other in the blob."""
        kept = None
        if video.video_id in self._options.kept:
            kept = read_row(self._store, video.video_id, kept_key(video.video_id))
        try:
            child = self._child or child_for_this_process(self._limits)
            index = patiently(lambda: child.probe(video.uri, self._options.stream))
            frames = frames_of(video.excerpt, index, video.uri)
            check_regions(self._options.regions, index, self._options.working_size, video.uri)
        except MediaError as problem:
            return to_table(_failed(video, problem.reason, str(problem), kept))
        if kept is not None and (why := _other_video(kept, _facts(video, index))):
            return to_table(_failed(video, "changed", why, kept))
        work, numbers = self._work(video, index, frames, kept)
        return to_table(work, np.ascontiguousarray(numbers))

    def _work(
        self, video: VideoInput, index: VideoIndex, frames: np.ndarray | None, kept: dict[str, Any] | None
    ) -> tuple[VideoWork, np.ndarray]:
        cut, length = self._options.segment_frames, self._options.length_of(index)
        plans = plan_segments(index, segment_frames=cut, shard_frames=length, frames=frames)
        committed = _committed(self._store, video.video_id)
        states = list(list_states(self._store, video.video_id)) if committed else []
        segments, numbers = [], []
        for plan in plans:
            if kept is not None and committed.issuperset((plan.segment, p) for p in range(_parts_of(plan))):
                parts = _parts_of(plan)
                segments.append(SegmentWork(plan.segment, parts, parts, frames_left=0, totals={}))
                continue
            segment, of_units = self._segment(video, index, plan, committed, states)
            segments.append(segment)
            numbers.extend(of_units)
        work = VideoWork(
            video.video_id,
            video.uri,
            facts=_facts(video, index) | {"note": self._options.note_of(index)},
            frames=sum(plan.frames for plan in plans),
            frames_left=sum(segment.frames_left for segment in segments),
            damage=index.damage,
            segments=segments,
            kept=kept,
        )
        return work, np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.int64)

    def _segment(
        self,
        video: VideoInput,
        index: VideoIndex,
        plan: SegmentPlan,
        committed: set[tuple[int, int]],
        states: Sequence[StateKey],
    ) -> tuple[SegmentWork, list[np.ndarray]]:
        parts = _parts_of(plan)
        prefix = next((p for p in range(parts) if (plan.segment, p) not in committed), parts)
        point, saved = self._saved([s for s in states if s.segment == plan.segment], prefix)
        start = point.next_shard if point else 0
        work = SegmentWork(plan.segment, parts, point.next_part if point else 0, frames_left=0)
        if saved:
            work.frames_done, work.keys_done = saved.frames_in_parts, saved.keys_in_parts
            if start == parts:
                work.totals = asdict(saved.totals)
                return work, []
        numbers = []
        for unit in plan.units:
            if unit.first_shard + unit.shards <= start:
                continue
            decode = self._options.unit_of(unit, video, index)
            skip = max(0, start - unit.first_shard)
            last = unit is plan.units[-1]
            work.units.append(_unit_message(video.video_id, plan.segment, unit, decode, skip, last, index))
            work.frames_left += max(0, unit.frames - skip * unit.shard_frames)
            numbers.append(unit_numbers(decode))
        return work, numbers

    def _saved(self, states: Sequence[StateKey], prefix: int) -> tuple[StateKey | None, Saved | None]:
        """The state to go on from, and its sums; a damaged one is passed over for the one before it."""
        left = list(states)
        while point := resume_point(left, prefix):
            try:
                return point, read_saved(self._store.get(str(point)))
            except (CursorError, FileNotFoundError):
                left.remove(point)
        return None, None


@dataclass(slots=True)
class VideoInputMessage:
    """A ``VideoInput`` on its way to the planner."""

    video_id: str
    uri: str
    size: int
    stamp: str
    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None


def check_regions(regions: RegionsConfig, index: VideoIndex, spec: int | str, uri: str) -> None:
    """`MediaError` for a video whose working size has no such regions."""
    if why := regions.problem(working_size(index.width, index.height, spec)):
        raise MediaError("too_small", f"{uri}: {why}")


def resume_point(states: Iterable[StateKey], prefix: int) -> StateKey | None:
    """The newest state from which nothing is missing: all parts before its ``next_part`` are committed."""
    usable = [state for state in states if state.next_part <= prefix]
    return max(usable, key=lambda state: state.next_shard, default=None)


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """A row for the decode stage, and the frames it stands for."""

    row: pa.Table
    frames: int
    shard_bytes: int


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A segment that is not done: the frames that are left, their size in pixels, and their units."""

    frames: int
    pixels: int
    units: list[PlannedUnit]


def open_segments(work: VideoWork, blob: pa.Buffer, *, single_shards: bool) -> list[OpenSegment]:
    """What is left to do of a video, segment by segment."""
    numbers, found = np.frombuffer(blob, dtype=np.int64), []
    for segment in work.segments:
        units, pixels = [], 0
        for message in segment.units:
            decode, numbers = read_unit(message, numbers)
            pixels = decode.height * decode.width
            pieces = _split(message) if single_shards and message.times <= _MOST_SPLIT else [message]
            for piece in pieces:
                units.append(PlannedUnit(unit_table(piece, decode), piece.frames, piece.shard_bytes))
        if units:
            found.append(OpenSegment(segment.frames_left, pixels, units))
    return found


def _split(message: UnitMessage) -> list[UnitMessage]:
    numbers = range(message.skip_shards, message.skip_shards + message.take_shards)
    return [replace(message, skip_shards=number, take_shards=1) for number in numbers]


def _unit_message(
    video_id: str, segment: int, unit: UnitPlan, decode: DecodeUnit, skip: int, last: bool, index: VideoIndex
) -> UnitMessage:
    header = decode.to_dict()
    del header["frame_pts"], header["kept"]
    decoded, working = (index.height, index.width), (decode.height, decode.width)
    usual = usual_bytes(index.pix_fmt, decoded, working, motion=decode.motion)
    return UnitMessage(
        video_id=video_id,
        segment=segment,
        first_shard=unit.first_shard,
        shards=unit.shards,
        skip_shards=skip,
        take_shards=unit.shards - skip,
        shard_frames=unit.shard_frames,
        ends_segment=last,
        source_height=index.shown[0],
        source_width=index.shown[1],
        mirrored=index.mirrored,
        frames=decode.frames,
        times=len(decode.frame_pts),
        shard_bytes=usual * unit.shard_frames,
        unit=header,
    )


def _failed(video: VideoInput, reason: str, message: str, kept: dict[str, Any] | None) -> VideoWork:
    facts = _excerpt_facts(video)
    return VideoWork(video.video_id, video.uri, reason=reason, message=message, facts=facts, kept=kept)


def _other_video(kept: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    """What says, before anything is written, that a video is not the one whose frames are there."""
    known = {name: value for name, value in facts.items() if kept[name] is not None}
    differs = [f"{name} is {value}, not {kept[name]}" for name, value in known.items() if kept[name] != value]
    return ", ".join(differs) or None


def _parts_of(plan: SegmentPlan) -> int:
    return sum(unit.shards for unit in plan.units)


def _committed(store: ObjectStore, video_id: str) -> set[tuple[int, int]]:
    return {
        (key.segment, shard)
        for key in committed_parts(store, video_id)
        for shard in range(key.first, key.last + 1)
    }


def _facts(video: VideoInput, index: VideoIndex) -> dict[str, Any]:
    duration = covered_s(video.excerpt, index)
    return _excerpt_facts(video) | {
        "codec": index.codec,
        "width": index.width,
        "height": index.height,
        "declared_frames": index.declared_frames or None,
        "duration_s": duration if math.isfinite(duration) else None,
        "stream": index.stream,
        "other_streams": index.other_streams,
    }


def _excerpt_facts(video: VideoInput) -> dict[str, Any]:
    return {"fps": video.fps, "start_s": video.start_s, "end_s": video.end_s}


def input_tables(videos: Sequence[VideoInput], tasks: int) -> list[pa.Table]:
    """Rows for the plan stage in at most ``tasks`` blocks, dealt like cards: neighbours are often alike, so
    expensive ones would meet in one block."""
    rows = [to_table(VideoInputMessage(**asdict(video))) for video in videos]
    return [pa.concat_tables(rows[i::tasks]) for i in range(min(tasks, len(rows)))]


def read_works(table: pa.Table) -> list[tuple[VideoWork, pa.Buffer]]:
    """The planner's answers in a table."""
    return messages(table, VideoWork)
