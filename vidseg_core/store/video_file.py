"""A video file that FFmpeg writes, whole or not at all.

FFmpeg's muxers are no match for a disk that fills: closing one after a failed write ends the process with a
segmentation fault. So they write into a file object of ours, and never learn of an error: the first one is
kept, what comes after it is dropped, and `mux` raises it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import av
from av.container import OutputContainer

from vidseg_core.store.atomic import whole_file
from vidseg_core.store.errors import WriteError


class VideoFile:
    """A container under way; made by `video_file`."""

    def __init__(self, container: OutputContainer, sink: _KeepsError) -> None:
        self.container = container
        self._sink = sink

    def mux(self, packets: Any) -> None:
        """Write what an encoder returned; `WriteError` if a byte so far found no place."""
        self.container.mux(packets)
        self._sink.check()


@contextmanager
def video_file(path: str | os.PathLike[str], *, kind: str = "mp4") -> Iterator[VideoFile]:
    """A container of this kind; it becomes `path` if the block ends without an error."""
    with whole_file(path) as file:
        sink = _KeepsError(file)
        container = av.open(sink, "w", format=kind)
        try:
            yield VideoFile(container, sink)
            container.close()
            sink.check()
        except BaseException:
            with suppress(Exception):
                container.close()
            raise


class _KeepsError(io.RawIOBase):
    """A file object that never raises while it is written to."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._error: WriteError | None = None
        self._position = self._size = 0

    def check(self) -> None:
        """Raise the first error."""
        if self._error is not None:
            raise self._error

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._try(lambda: self._file.write(data))
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = {0: 0, 1: self._position, 2: self._size}[whence] + offset
        self._try(lambda: self._file.seek(self._position))
        return self._position

    def tell(self) -> int:
        return self._position

    def _try(self, work: Any) -> None:
        if self._error is not None:
            return
        try:
            work()
        except WriteError as error:
            self._error = error
