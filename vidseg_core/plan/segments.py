"""A video cut into units, shards and segments.

Model: units begin at proven key frames, where a fresh decoder may start; the next unit begins at the first
such key at least `unit_frames` after the last one's start. A segment is a run of whole units with at least
`segment_frames` frames (0: the whole video). A shard is up to `shard_frames` frames of one unit, fewer where
frames are large (`shard_length`); shards are numbered within their segment. Where only some of the frames
are processed (`excerpt`), all these lengths count those, and a unit begins at the last proven key before its
first one.
Invariant: units depend on the video, and on which of its frames are processed, alone. Units of a segment are
contiguous, segments cover every frame that is processed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from vidseg_core.media import DecodeUnit, VideoIndex

UNIT_FRAMES = 256
SHARD_BYTES = 96_000_000
"""Bytes of a shard: handing one on costs tens of milliseconds whatever its size, and memory holds a dozen."""


def shard_length(most: int, frame_bytes: int) -> int:
    """Frames of a shard: as many as `SHARD_BYTES` hold, at least one and at most `most`."""
    return max(1, min(most, SHARD_BYTES // max(1, frame_bytes)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UnitPlan:
    """One unit, and which shards of its segment it yields."""

    first_frame: int
    """Video-wide number of its first frame."""
    frames: int
    """Frames of it that are processed."""
    frame_pts: np.ndarray
    """int64, one for each of its frames."""
    kept: np.ndarray | None
    """As `DecodeUnit.kept`."""
    starts_anywhere: bool
    end_pts: int | None
    key_dts: int
    first_shard: int
    """Number, within the segment, of its first shard."""
    shards: int
    shard_frames: int
    """Frames of each of them but the last."""

    def decode_unit(
        self,
        uri: str,
        index: VideoIndex,
        *,
        height: int,
        width: int,
        stamp: str = "",
        maps_hdr: bool = True,
        motion: bool = False,
    ) -> DecodeUnit:
        """What `media.decode_unit` needs; of `index`: stream, rotation, time base and regularity.

        `stamp`: of the file that the run listed (`media.stamp_of`).
        """
        return DecodeUnit(
            uri=uri,
            first_frame=self.first_frame,
            frame_pts=self.frame_pts,
            end_pts=self.end_pts,
            key_dts=self.key_dts,
            regular=index.regular,
            time_base_num=index.time_base_num,
            time_base_den=index.time_base_den,
            rotation=index.rotation,
            width=width,
            height=height,
            stream=index.stream,
            stamp=stamp,
            kept=self.kept,
            starts_anywhere=self.starts_anywhere,
            maps_hdr=maps_hdr,
            motion=motion,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SegmentPlan:
    """One segment of one video."""

    video_id: str
    segment: int
    units: tuple[UnitPlan, ...]

    @property
    def first_frame(self) -> int:
        return self.units[0].first_frame

    @property
    def frames(self) -> int:
        return sum(unit.frames for unit in self.units)

    @property
    def shards(self) -> int:
        return sum(unit.shards for unit in self.units)


def unit_starts(
    key_indices: Sequence[int] | np.ndarray, frames: np.ndarray, unit_frames: int
) -> list[tuple[int, int]]:
    """(position in `key_indices`, place in `frames` of its first frame) of every unit.

    `frames`: numbers of the frames that are processed, increasing.
    """
    starts: list[tuple[int, int]] = []
    places = np.searchsorted(frames, key_indices).tolist()
    for position, place in enumerate(places):
        is_last = position + 1 == len(places) or places[position + 1] > place  # of those before that frame
        if is_last and place < len(frames) and (not starts or place - starts[-1][1] >= unit_frames):
            starts.append((position, place))
    return starts


def plan_segments(
    index: VideoIndex,
    *,
    segment_frames: int,
    shard_frames: int,
    unit_frames: int = UNIT_FRAMES,
    video_id: str = "",
    frames: np.ndarray | None = None,
) -> list[SegmentPlan]:
    """Segments of a video, in order. Raises ValueError for sizes below one (`segment_frames`: below zero).

    `frames`: numbers of the frames that are processed, increasing (`excerpt.frames_of`); None: all.
    """
    if segment_frames < 0 or shard_frames < 1 or unit_frames < 1:
        raise ValueError(
            f"segment_frames {segment_frames} must be >= 0, shard_frames {shard_frames} and "
            f"unit_frames {unit_frames} >= 1"
        )
    frames = np.arange(index.frames) if frames is None else frames
    starts = unit_starts(index.key_indices, frames, unit_frames)
    segments: list[SegmentPlan] = []
    units: list[UnitPlan] = []
    for number, (key, place) in enumerate(starts):
        is_last = number + 1 == len(starts)
        next_key, next_place = (None, len(frames)) if is_last else starts[number + 1]
        units.append(_unit(index, key, next_key, frames[place:next_place], units, shard_frames))
        if is_last or (segment_frames and sum(unit.frames for unit in units) >= segment_frames):
            segments.append(SegmentPlan(video_id=video_id, segment=len(segments), units=tuple(units)))
            units = []
    return segments


def _unit(
    index: VideoIndex,
    key: int,
    next_key: int | None,
    frames: np.ndarray,
    before: Sequence[UnitPlan],
    shard_frames: int,
) -> UnitPlan:
    """The unit from one position in `index.key_indices` to another (None: the end), for these frames."""
    first = int(index.key_indices[key])
    stop = index.frames if next_key is None else int(index.key_indices[next_key])
    return UnitPlan(
        first_frame=first,
        frames=len(frames),
        frame_pts=index.frame_pts[first:stop],
        kept=None if len(frames) == stop - first else frames - first,
        starts_anywhere=int(np.searchsorted(index.key_indices, stop)) - key == stop - first,
        end_pts=int(index.frame_pts[stop]) if stop < index.frames else None,
        key_dts=int(index.key_dts[key]),
        first_shard=before[-1].first_shard + before[-1].shards if before else 0,
        shards=ceil(len(frames) / shard_frames),
        shard_frames=shard_frames,
    )
