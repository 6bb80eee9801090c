"""Decoded frames put aside on the local disk, for readers that come back to them in any order.

Model: one unlinked temporary file a clip, frame k at k times the size of a frame (holes cost nothing); the
clip that was used longest ago goes first. Invariant: never more than `limit` bytes, and nothing stays behind,
however the process ends. A disk that is full means that less is kept, not an error.

Shape suffixes: H W rows and columns, 3 = RGB.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Hashable
from typing import IO

import numpy as np

LIMIT_BYTES = 16 << 30
SHARE_OF_DISK = 0.25
"""Most of what is free on the disk of temporary files (`$TMPDIR`) at the start that may be used."""


class FrameFiles:
    """Frames by clip and number; forgetful."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._clips: OrderedDict[Hashable, _ClipFile] = OrderedDict()

    def get(self, clip: Hashable, number: int) -> np.ndarray | None:
        """A new array with the frame, if it is there."""
        file = self._clips.get(clip)
        if file is None or number not in file.numbers:
            return None
        self._clips.move_to_end(clip)
        return file.read(number)

    def put(self, clip: Hashable, number: int, frame_HW3: np.ndarray) -> None:
        """Keep a frame; all frames of a clip have one size."""
        try:
            if clip not in self._clips:
                self._clips[clip] = _ClipFile(frame_HW3.shape)
            self._clips.move_to_end(clip)
            self._clips[clip].write(number, frame_HW3)
        except OSError:
            self.drop(clip)
        while self._clips and self._bytes() > self._room():
            self.drop(next(iter(self._clips)))

    def drop(self, clip: Hashable) -> None:
        if (file := self._clips.pop(clip, None)) is not None:
            file.close()

    def close(self) -> None:
        for clip in list(self._clips):
            self.drop(clip)

    def _bytes(self) -> int:
        return sum(file.bytes for file in self._clips.values())

    def _room(self) -> int:
        if self._limit is None:
            free = shutil.disk_usage(tempfile.gettempdir()).free + self._bytes()
            self._limit = int(min(LIMIT_BYTES, SHARE_OF_DISK * free))
        return self._limit


class _ClipFile:
    """The frames of one clip."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape, self._size = shape, int(np.prod(shape))
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="vidseg-frames-", buffering=0)
        self.numbers: set[int] = set()

    @property
    def bytes(self) -> int:
        return len(self.numbers) * self._size

    def read(self, number: int) -> np.ndarray:
        frame = np.empty(self._shape, dtype=np.uint8)
        os.preadv(self._file.fileno(), [frame.reshape(-1).data], number * self._size)
        return frame

    def write(self, number: int, frame_HW3: np.ndarray) -> None:
        data = np.ascontiguousarray(frame_HW3).reshape(-1).data
        if os.pwrite(self._file.fileno(), data, number * self._size) != self._size:
            raise OSError("the disk took a part of the frame only")
        self.numbers.add(number)

    def close(self) -> None:
        self._file.close()
