"""Decoding one unit into shards of frames.

Model: a fresh decoder starts at the unit's key frame; a decoded frame finds its number by its presentation
time (in an irregular video: by counting). Frames before the unit are dropped; the first frame at or after
`end_pts` shows that the unit is complete (decoders deliver in presentation order).
A unit may want some of its frames only (`DecodeUnit.kept`): the others are decoded, since frames refer to
each other (unless each is a picture of its own, as in sequences of JPEG), and dropped before anything else is
done with them; after the last wanted one decoding stops.
Invariant: exactly the planned shards come out, in order, whatever happens; shard s of a unit holds wanted
frames s*shard_frames .. (s+1)*shard_frames - 1, less those that were lost. What was lost, and what came out
that the plan does not know, is in `error` of a shard.

Frames are scaled by swscale (bilinear) straight to the working size, whatever their own size, so a change of
resolution inside a stream is no event; most of them only when somebody asks for their colours (`pictures`).
Rotation is applied after the scaling. Interlaced frames are delivered woven, as decoded. Mirroring and sample
aspect ratios are not applied (`look`): a net sees the pixels as they are.

Legend: T frames of a shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil

import av
import av.error
import numpy as np
from av.video.frame import VideoFrame

from vidseg_core.media.bitstream import STANDS_ALONE
from vidseg_core.media.errors import MediaError
from vidseg_core.media.guard import check_picture, open_video
from vidseg_core.media.model import DecodeUnit, MediaLimits, seconds_of
from vidseg_core.media.motion import Motion, MotionReader
from vidseg_core.media.packets import FrameStream, describe_error
from vidseg_core.media.pictures import FrameShard, Layout, Pictures, PictureWriter, slot_bytes_of
from vidseg_core.media.source import check_stamp

NewMemory = Callable[[int], np.ndarray]
"""Gives the memory for a shard of T frames: uint8, one-dimensional, T times `slot_bytes_of` bytes."""


def decode_unit(
    unit: DecodeUnit,
    *,
    shard_frames: int,
    skip_shards: int = 0,
    limits: MediaLimits | None = None,
    new_memory: NewMemory | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Iterator[FrameShard]:
    """Yields the unit's shards from number `skip_shards` on: ceil(n / shard_frames) - skip_shards of them.

    An error inside the stream leaves shards shorter or empty, with the text in `error`; it does not raise.
    Raises MediaError when the file cannot be opened or read (any more): that
    is no property of the video, and may pass; and `changed` when it is another file than `unit.stamp` says.
    `new_memory` lets the caller own the memory; `beat` is called while progress is made.
    """
    if shard_frames < 1 or skip_shards < 0:
        raise ValueError(f"shard_frames {shard_frames} must be >= 1 and skip_shards {skip_shards} >= 0")
    shards = ceil(unit.frames / shard_frames)
    if skip_shards >= shards:
        return
    writer = _ShardWriter(unit, shard_frames, new_memory or _fresh_memory(unit), skip_shards)
    numbered = _NumberedFrames(unit, limits or MediaLimits())
    place_of = _places(unit)
    for ordinal, frame in numbered:
        beat()
        place = place_of[ordinal]
        shard = place // shard_frames
        motion = numbered.motion_of(ordinal, frame, is_delivered=place >= 0, is_wanted=shard >= writer.shard)
        if place < 0:
            continue
        while shard > writer.shard:
            numbered.check()
            yield writer.take()
        if shard == writer.shard:
            writer.add(ordinal, frame, motion)
    while writer.shard < shards:
        is_last = writer.shard == shards - 1
        yield writer.take(numbered.error, always=is_last)


def _places(unit: DecodeUnit) -> Sequence[int]:
    """For each frame of the unit its place among those that are delivered; -1: it is not."""
    if unit.kept is None:
        return range(len(unit.frame_pts))
    places = np.full(len(unit.frame_pts), -1, dtype=np.int64)
    places[unit.kept] = np.arange(len(unit.kept))
    return places.tolist()


class _NumberedFrames:
    """(planned ordinal, frame) of the unit's frames up to the last one that is delivered, ordinals strictly
    increasing; then `error` is set."""

    def __init__(self, unit: DecodeUnit, limits: MediaLimits) -> None:
        self.unit, self.limits = unit, limits
        self.error: str | None = None
        self._strays = 0
        self._last = len(unit.frame_pts) - 1 if unit.kept is None else int(unit.kept[-1])
        self._motion: MotionReader | None = None

    def __iter__(self) -> Iterator[tuple[int, VideoFrame]]:
        unit = self.unit
        start = None if unit.first_frame == 0 else int(unit.frame_pts[0])
        with open_video(unit.uri, self.limits, stream=unit.stream, stamp=unit.stamp) as video:
            self._source = video.source
            self.check()
            codec = video.stream.codec_context
            if unit.motion and unit.regular:
                self._motion = MotionReader.of(codec, unit.rotation)
            frames = FrameStream(
                video,
                start_pts=start,
                start_dts=unit.key_dts,
                end_pts=unit.end_pts,
                wanted=self._wanted(codec.codec.canonical_name),
                fed=None if self._motion is None else self._motion.feed,
            )
            try:
                yield from self._by_time(frames) if unit.regular else self._by_count(frames)
            except (MemoryError, av.error.MemoryError):
                self.error = "more memory needed than the limit allows"
            except MediaError as error:
                if error.reason != "too_large":
                    raise
                self.error = str(error)
            else:
                self.error = "; ".join(text for text in (frames.error, self._surplus()) if text) or None
                self.check()

    def _wanted(self, codec: str) -> frozenset[int | None] | None:
        """Times of the packets to decode, where pictures stand alone; None: all."""
        unit = self.unit
        if unit.kept is None or not unit.starts_anywhere or codec not in STANDS_ALONE:
            return None
        return frozenset(unit.frame_pts[unit.kept].tolist())

    def motion_of(
        self, ordinal: int, frame: VideoFrame, *, is_delivered: bool, is_wanted: bool
    ) -> Motion | None:
        """As `MotionReader.read`, where motion is asked for."""
        if self._motion is None:
            return None
        return self._motion.read(ordinal, frame, is_delivered=is_delivered, is_wanted=is_wanted)

    def check(self) -> None:
        """MediaError changed if the file is not what it was when its run began."""
        check_stamp(self.unit.uri, self._source, self.unit.stamp)

    def _surplus(self) -> str | None:
        if not self._strays:
            return None
        return (
            f"{self._strays} frame{'s' if self._strays > 1 else ''} came out that the packets do not announce"
        )

    def _by_time(self, frames: FrameStream) -> Iterator[tuple[int, VideoFrame]]:
        """Frames up to the next unit's first; at the end of the file all that is left is read, too."""
        pts, end = self.unit.frame_pts, self.unit.end_pts
        last, total = -1, len(pts)
        reads_to_the_end = end is None and self._last == total - 1
        for frame in frames:
            if frame.pts is not None and end is not None and frame.pts >= end:
                return
            ordinal = total if frame.pts is None else int(np.searchsorted(pts, frame.pts))
            if ordinal >= total or pts[ordinal] != frame.pts or ordinal <= last:
                self._strays += frame.pts is None or frame.pts >= pts[0]
                continue
            check_picture(self.unit.uri, frame.width, frame.height, self.limits)
            yield ordinal, frame
            last = ordinal
            if last >= self._last and not reads_to_the_end:
                return

    def _by_count(self, frames: FrameStream) -> Iterator[tuple[int, VideoFrame]]:
        total = len(self.unit.frame_pts)
        for ordinal, frame in enumerate(frames):
            if ordinal >= total:
                self._strays += 1
                continue
            check_picture(self.unit.uri, frame.width, frame.height, self.limits)
            yield ordinal, frame
            if self._last <= ordinal < total - 1:
                return


class _ShardWriter:
    """Fills one shard after the other; `shard` is the number of the one being filled."""

    def __init__(self, unit: DecodeUnit, shard_frames: int, new_memory: NewMemory, skip_shards: int) -> None:
        self.unit, self.shard_frames, self.new_memory = unit, shard_frames, new_memory
        self.shard = skip_shards
        self._writer = PictureWriter(unit.height, unit.width, unit.rotation, maps_hdr=unit.maps_hdr)
        self._begin()

    def _begin(self) -> None:
        self._ordinals: list[int] = []
        self._corrupt: list[bool] = []
        self._layouts: dict[Layout, int] = {}
        self._layout_of: list[int] = []
        self._memory: np.ndarray | None = None
        self._used = 0

    def add(self, ordinal: int, frame: VideoFrame, motion: Motion | None) -> None:
        if self._memory is None:
            self._memory = self.new_memory(self._planned())
        try:
            layout = self._writer.write(frame, self._memory[self._used :], motion)
        except av.error.FFmpegError as error:
            text = f"pictures of the format {frame.format.name} cannot be converted ({describe_error(error)})"
            raise MediaError("no_frames", f"{self.unit.uri}: {text}") from None
        self._used += layout.bytes
        self._layout_of.append(self._layouts.setdefault(layout, len(self._layouts)))
        self._ordinals.append(ordinal)
        self._corrupt.append(frame.is_corrupt)

    def take(self, error: str | None = None, always: bool = False) -> FrameShard:
        """The shard as filled so far; with `error`, or a plain count, if frames are missing or `always`."""
        unit, ordinals, planned = self.unit, np.array(self._ordinals, dtype=np.int64), self._planned()
        missing = planned - len(ordinals)
        if missing:
            error = error or f"{missing} of {planned} frames did not come out of the decoder"
        memory = self._memory if self._memory is not None else self.new_memory(0)
        out = FrameShard(
            frame_index=unit.first_frame + ordinals,
            pts_s=seconds_of(unit.frame_pts[ordinals], unit.time_base_num, unit.time_base_den),
            is_corrupt=np.array(self._corrupt, dtype=bool),
            pictures=Pictures(
                memory, list(self._layouts), self._layout_of, height=unit.height, width=unit.width
            ),
            error=error if missing or always else None,
        )
        self.shard += 1
        self._begin()
        return out

    def _planned(self) -> int:
        """Frames of the shard that is being filled."""
        return min(self.shard_frames, self.unit.frames - self.shard * self.shard_frames)


def _fresh_memory(unit: DecodeUnit) -> NewMemory:
    slot_bytes = slot_bytes_of(unit.height, unit.width, motion=unit.motion)
    return lambda count: np.empty(count * slot_bytes, dtype=np.uint8)
