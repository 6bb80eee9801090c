"""A video cut into units, shards and segments.

Model: units begin at proven key frames, where a fresh decoder may start; the next unit begins at the first
such key at least `unit_frames` after the last one's start. A segment is a run of whole units with at least
`segment_frames` frames (0: the whole video). A shard is up to `shard_frames` frames of one unit, fewer where
frames are large (`shard_length`); shards are numbered within their segment.
Invariant: units depend on the video alone. Units of a segment are contiguous, segments cover every frame
once.
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
    frame_pts: np.ndarray
    """int64[frames]"""
    end_pts: int | None
    key_dts: int
    first_shard: int
    """Number, within the segment, of its first shard."""
    shards: int
    shard_frames: int
    """Frames of each of them but the last."""

    def decode_unit(
        self, uri: str, index: VideoIndex, *, height: int, width: int, stamp: str = ""
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
    key_indices: Sequence[int] | np.ndarray, frames: int, unit_frames: int
) -> list[tuple[int, int]]:
    """(position in `key_indices`, first frame) of every unit of a video of `frames` frames."""
    starts: list[tuple[int, int]] = []
    for position, first in enumerate(int(key) for key in key_indices):
        if first < frames and (not starts or first - starts[-1][1] >= unit_frames):
            starts.append((position, first))
    return starts


def plan_segments(
    index: VideoIndex,
    *,
    segment_frames: int,
    shard_frames: int,
    unit_frames: int = UNIT_FRAMES,
    video_id: str = "",
) -> list[SegmentPlan]:
    """Segments of a video, in order. Raises ValueError for sizes below one (`segment_frames`: below zero)."""
    if segment_frames < 0 or shard_frames < 1 or unit_frames < 1:
        raise ValueError(
            f"segment_frames {segment_frames} must be >= 0, shard_frames {shard_frames} and "
            f"unit_frames {unit_frames} >= 1"
        )
    starts = unit_starts(index.key_indices, index.frames, unit_frames)
    segments: list[SegmentPlan] = []
    units: list[UnitPlan] = []
    for number, (key, first) in enumerate(starts):
        stop = starts[number + 1][1] if number + 1 < len(starts) else index.frames
        units.append(_unit(index, key, first, stop, units, shard_frames))
        full = segment_frames and stop - units[0].first_frame >= segment_frames
        if full or stop == index.frames:
            segments.append(SegmentPlan(video_id=video_id, segment=len(segments), units=tuple(units)))
            units = []
    return segments


def _unit(
    index: VideoIndex, key: int, first: int, stop: int, before: Sequence[UnitPlan], shard_frames: int
) -> UnitPlan:
    return UnitPlan(
        first_frame=first,
        frames=stop - first,
        frame_pts=index.frame_pts[first:stop],
        end_pts=int(index.frame_pts[stop]) if stop < index.frames else None,
        key_dts=int(index.key_dts[key]),
        first_shard=before[-1].first_shard + before[-1].shards if before else 0,
        shards=ceil((stop - first) / shard_frames),
        shard_frames=shard_frames,
    )
