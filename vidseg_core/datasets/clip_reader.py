"""Single frames of videos at the price of reading them in order.

Model: a cursor decodes one clip forward, from the first frame of the unit (see `plan.segments`) that a wanted
frame lies in; every frame that passes goes into a cache of bounded size, oldest out first. Reading a clip in
order decodes each frame once; a frame elsewhere costs at most one unit, 256 frames or so.
Invariant: a frame's number and bytes are those that `vidseg segment` sees at the same size.

One decode process per reader, started when needed and left behind when the reader is pickled.
Shape suffixes: H W rows and columns, 3 = RGB.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import numpy as np

from vidseg_core.datasets.records import DatasetError
from vidseg_core.media import DecodeChild, MediaError, VideoIndex
from vidseg_core.plan.segments import UnitPlan, plan_segments

CACHE_BYTES = 256 << 20
SHARD_FRAMES = 16
_Clip = tuple[str, int, int]
"""Address, height, width."""


class ClipReader:
    """Reads frames of videos by number; see the module."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache_bytes = cache_bytes
        self._forget()

    def _forget(self) -> None:
        self._child: DecodeChild | None = None
        self._indices: dict[str, VideoIndex] = {}
        self._frames: OrderedDict[tuple[_Clip, int], np.ndarray] = OrderedDict()
        self._used = 0
        self._cursor: _Cursor | None = None

    def index(self, uri: str) -> VideoIndex:
        """Size and frames of a video, asked once. `DatasetError` if it cannot be opened."""
        if uri not in self._indices:
            self._close_cursor()
            try:
                self._indices[uri] = self._process().probe(uri)
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
        clip = (uri, height or index.height, width or index.width)
        if (clip, number) not in self._frames:
            self._decode_to(clip, number)
        self._frames.move_to_end((clip, number))
        return self._frames[clip, number].copy()

    def close(self) -> None:
        """Ends the decode process and empties the cache."""
        self._close_cursor()
        if self._child is not None:
            self._child.close()
        self._forget()

    def _decode_to(self, clip: _Clip, number: int) -> None:
        if self._cursor is None or not self._cursor.leads_to(clip, number):
            self._close_cursor()
            self._cursor = _Cursor(clip, self._indices[clip[0]], number, self._process())
        try:
            for found, frame_HW3 in self._cursor:
                self._keep(clip, found, frame_HW3)
                if found >= number:
                    break
        except MediaError as error:
            self._close_cursor()
            raise DatasetError(f"frame {number}: {error}") from error
        if (clip, number) not in self._frames:
            raise DatasetError(f"{clip[0]}: frame {number} cannot be decoded")

    def _keep(self, clip: _Clip, number: int, frame_HW3: np.ndarray) -> None:
        old = self._frames.pop((clip, number), None)
        self._frames[clip, number] = frame_HW3.copy()
        self._used += frame_HW3.nbytes - (0 if old is None else old.nbytes)
        while self._used > self._cache_bytes and len(self._frames) > 1:
            self._used -= self._frames.popitem(last=False)[1].nbytes

    def _process(self) -> DecodeChild:
        if self._child is None:
            self._child = DecodeChild()
        return self._child

    def _close_cursor(self) -> None:
        if self._cursor is not None:
            with suppress(MediaError):
                self._cursor.close()
            self._cursor = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_cache_bytes": self._cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_cache_bytes"])


class _Cursor:
    """Frames of one clip, forward, from the unit that holds frame `number`."""

    def __init__(self, clip: _Clip, index: VideoIndex, number: int, child: DecodeChild) -> None:
        self._clip, self._index, self._child = clip, index, child
        segments = plan_segments(index, segment_frames=0, shard_frames=SHARD_FRAMES)
        self._units = [unit for segment in segments for unit in segment.units]
        self._next = self._start_of(number)
        self._frames = self._decode([unit for unit in self._units if unit.first_frame >= self._next])

    def leads_to(self, clip: _Clip, number: int) -> bool:
        """Is the frame ahead, and no fresh start nearer to it?"""
        return clip == self._clip and self._start_of(number) <= self._next <= number

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for number, frame_HW3 in self._frames:
            self._next = number + 1
            yield number, frame_HW3

    def close(self) -> None:
        self._frames.close()

    def _start_of(self, number: int) -> int:
        return max(unit.first_frame for unit in self._units if unit.first_frame <= number)

    def _decode(self, units: list[UnitPlan]):  # noqa: ANN202
        uri, height, width = self._clip
        for planned in units:
            unit = planned.decode_unit(uri, self._index, height=height, width=width)
            with closing(self._child.decode(unit, SHARD_FRAMES)) as shards:
                for shard in shards:
                    yield from zip(shard.frame_index.tolist(), shard.frames_THW3, strict=True)
