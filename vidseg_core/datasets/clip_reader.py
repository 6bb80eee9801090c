"""Single frames of videos, in order or not, each decoded about once.

Model: whoever reads in order has a cursor that decodes forward; the last frames stay in memory. A frame that
lies elsewhere is decoded with the rest of its unit (see `plan.segments`; units start about every 256 frames),
which is put aside on disk (`frame_files`): the next frame somebody wants in no order is likely there.
Invariant: a frame's number and bytes are those that `vidseg segment` sees at the same size, whatever was read
before.

One decode process per reader, started when needed; a reader that is pickled or forked starts its own.
Shape suffixes: H W rows and columns, 3 = RGB.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from os import getpid
from typing import Any

import numpy as np

from vidseg_core.datasets.frame_files import FrameFiles
from vidseg_core.datasets.records import DatasetError
from vidseg_core.media import DecodeChild, MediaError, MediaLimits, Motion, VideoIndex
from vidseg_core.plan.segments import UnitPlan, plan_segments

MEMORY_BYTES = 64 << 20
"""Frames that a reader keeps in memory."""
AHEAD = 512
"""Frames after the wanted one that are decoded and kept with it, at most."""
MOTIONS = AHEAD + 1
"""Frames whose motion is kept: the wanted one and all that are decoded with it."""
SHARD_FRAMES = 16
_Clip = tuple[str, int, int]
"""Address, height, width."""
_Read = tuple[int, np.ndarray, Motion | None]
"""Number, frame and motion."""
_inherited: list[tuple[DecodeChild | None, _Cursor | None]] = []
"""What belongs to the process that this one was forked from: kept, so that nothing here ends it."""


class ClipReader:
    """Reads frames of videos by number; see the module. Not thread-safe."""

    def __init__(
        self,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int | None = None,
        stream: int | None = None,
        *,
        maps_hdr: bool = True,
        limits: MediaLimits | None = None,
        as_shown: bool = False,
    ) -> None:
        """`stream`: number of the stream to read in every file; None: the one that is the video. `as_shown`:
        frames as players show them (mirrored where the file asks for it), not as nets see them."""
        self._memory_bytes, self._disk_bytes, self._stream = memory_bytes, disk_bytes, stream
        self._maps_hdr, self._limits, self._as_shown = maps_hdr, limits, as_shown
        self._pid = getpid()
        self._child: DecodeChild | None = None
        self._indices: dict[str, VideoIndex] = {}
        self._frames: OrderedDict[tuple[_Clip, int], np.ndarray] = OrderedDict()
        self._used = 0
        self._aside = FrameFiles(disk_bytes)
        self._sizes: dict[str, _Clip] = {}
        self._motions: OrderedDict[tuple[str, int], Motion | None] = OrderedDict()
        self._reads_motion = False
        self._cursor: _Cursor | None = None
        self.decoded = 0
        """Frames decoded so far."""

    def index(self, uri: str) -> VideoIndex:
        """Size and frames of a video, asked once. `DatasetError` if it cannot be opened."""
        if getpid() != self._pid:
            _inherited.append((self._child, self._cursor))
            self.__init__(**self.__getstate__())
        if uri not in self._indices:
            self._close_cursor()
            try:
                self._indices[uri] = self._process().probe(uri, self._stream)
            except MediaError as error:
                raise DatasetError(f"{error}") from error
        return self._indices[uri]

    def frame(self, uri: str, number: int, height: int = 0, width: int = 0) -> np.ndarray:
        """A new uint8 frame_HW3, scaled to `height` x `width` (0: the video's own size).

        `DatasetError` for a number that the video does not have, and for a frame that cannot be decoded.
        """
        index = self.index(uri)
        if not 0 <= number < index.frames:
            raise DatasetError(f"{uri}: no frame {number}: the video has {index.frames} frames")
        clip = self._sizes[uri] = (uri, height or index.height, width or index.width)
        found = self._kept(clip, number)
        if found is None:
            found = self._decoded(clip, number)
        if found is None:
            raise DatasetError(f"{uri}: frame {number} cannot be decoded")
        return found[:, ::-1].copy() if self._as_shown and index.mirrored else found

    def motion(self, uri: str, number: int) -> Motion | None:
        """What the stream says of a frame's motion; None: nothing. Frames bring it from the first call on."""
        index = self.index(uri)
        if not self._reads_motion:
            self._reads_motion = True
            self._close_cursor()
        if (uri, number) not in self._motions:
            self._decoded(self._sizes.get(uri, (uri, index.height, index.width)), number)
        return self._motions.get((uri, number))

    def close(self) -> None:
        """Ends the decode process and forgets all frames."""
        self._close_cursor()
        self._aside.close()
        if self._child is not None:
            self._child.close()
        self.__init__(**self.__getstate__())

    def _kept(self, clip: _Clip, number: int) -> np.ndarray | None:
        held = self._frames.get((clip, number))
        return self._aside.get(clip, number) if held is None else held.copy()

    def _decoded(self, clip: _Clip, number: int) -> np.ndarray | None:
        """The frame, decoded; what passes on the way is kept in memory, or aside if reading jumps."""
        if self._cursor is None or not self._cursor.leads_to(clip, number):
            self._close_cursor()
            index, child = self._indices[clip[0]], self._process()
            self._cursor = _Cursor(
                clip, index, number, child, maps_hdr=self._maps_hdr, motion=self._reads_motion
            )
        jumps = number > self._cursor.next
        last = self._cursor.unit_end(number, number + AHEAD) if jumps else number
        wanted = None
        try:
            for found, frame_HW3, motion in self._cursor:
                self.decoded += 1
                if self._reads_motion:
                    self._motions[clip[0], found] = motion
                wanted = frame_HW3.copy() if found == number else wanted
                if jumps:
                    self._aside.put(clip, found, frame_HW3)
                else:
                    self._remember(clip, found, frame_HW3)
                if found >= last:
                    break
        except MediaError as error:
            self._close_cursor()
            raise DatasetError(f"frame {number}: {error}") from error
        while len(self._motions) > MOTIONS:
            self._motions.popitem(last=False)
        return wanted

    def _remember(self, clip: _Clip, number: int, frame_HW3: np.ndarray) -> None:
        old = self._frames.pop((clip, number), None)
        self._frames[clip, number] = frame_HW3.copy()
        self._used += frame_HW3.nbytes - (0 if old is None else old.nbytes)
        while self._used > self._memory_bytes and len(self._frames) > 1:
            self._used -= self._frames.popitem(last=False)[1].nbytes

    def _process(self) -> DecodeChild:
        if self._child is None:
            self._child = DecodeChild(self._limits)
        return self._child

    def _close_cursor(self) -> None:
        if self._cursor is not None:
            with suppress(MediaError):
                self._cursor.close()
            self._cursor = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            "memory_bytes": self._memory_bytes,
            "disk_bytes": self._disk_bytes,
            "stream": self._stream,
            "maps_hdr": self._maps_hdr,
            "limits": self._limits,
            "as_shown": self._as_shown,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)


class _Cursor:
    """Frames of one clip, forward, from the unit that holds frame `number`."""

    def __init__(
        self,
        clip: _Clip,
        index: VideoIndex,
        number: int,
        child: DecodeChild,
        *,
        maps_hdr: bool,
        motion: bool,
    ) -> None:
        self._clip, self._index, self._child = clip, index, child
        self._maps_hdr, self._motion = maps_hdr, motion
        segments = plan_segments(index, segment_frames=0, shard_frames=SHARD_FRAMES)
        self._units = [unit for segment in segments for unit in segment.units]
        self.next = self._start_of(number)
        """The frame that comes next, if none is lost."""
        self._frames = self._decode([unit for unit in self._units if unit.first_frame >= self.next])

    def leads_to(self, clip: _Clip, number: int) -> bool:
        """Is the frame ahead, and no fresh start nearer to it?"""
        return clip == self._clip and self._start_of(number) <= self.next <= number

    def unit_end(self, number: int, limit: int) -> int:
        """The last frame of the unit that holds frame `number`, or `limit` if that comes first."""
        starts = [unit.first_frame for unit in self._units if unit.first_frame > number]
        return min([limit, *(start - 1 for start in starts), self._index.frames - 1])

    def __iter__(self) -> Iterator[_Read]:
        for read in self._frames:
            self.next = read[0] + 1
            yield read

    def close(self) -> None:
        self._frames.close()

    def _start_of(self, number: int) -> int:
        return max(unit.first_frame for unit in self._units if unit.first_frame <= number)

    def _decode(self, units: list[UnitPlan]) -> Generator[_Read]:
        uri, height, width = self._clip
        for planned in units:
            unit = planned.decode_unit(
                uri,
                self._index,
                height=height,
                width=width,
                maps_hdr=self._maps_hdr,
                motion=self._motion,
            )
            with closing(self._child.decode(unit, SHARD_FRAMES)) as shards:
                for shard in shards:
                    motions = (shard.pictures[t].motion() for t in range(len(shard)))
                    yield from zip(shard.frame_index.tolist(), shard.frames_THW3, motions, strict=True)
