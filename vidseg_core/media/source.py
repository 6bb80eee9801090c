"""Bytes of a video as a file object, always opened by us.

Model: a source is a binary file object with `read`, `seek`, `tell` and `size`. FFmpeg sees this object only,
never a path or an address, so it cannot follow one. Which there are: `opening`.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from abc import abstractmethod
from typing import Protocol

from vidseg_core.local_name import bytes_of
from vidseg_core.media.errors import MediaError

BAD_PLACE = -errno.EINVAL
"""What `seek` answers when a damaged file leads to a place that cannot be."""


class Source(Protocol):
    """A readable, seekable file object of known size."""

    size: int
    name: str
    damage: str | None
    """What is missing of it, as far as one sees without reading."""

    @property
    def stamp(self) -> str:
        """Identity of the contents at this moment: bytes, and time of change (nanoseconds) or ETag."""
        ...

    def read(self, size: int = -1, /) -> bytes | None: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...
    def close(self) -> None: ...


class LocalSource(io.FileIO):
    """A regular local file. Its `name` keeps the suffix only: FFmpeg is given no path."""

    damage: str | None = None

    def __init__(self, path: str) -> None:
        try:
            fd = os.open(bytes_of(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise MediaError("not_found", f"{path}: no such file") from None
        except (OSError, ValueError) as error:
            raise MediaError("unreadable", f"{path}: cannot be read ({error})") from None
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            os.close(fd)
            raise MediaError("unreadable", f"{path}: not a regular file")
        super().__init__(fd, "rb")
        self.size = info.st_size
        self.name = neutral_name(path)

    @property
    def stamp(self) -> str:
        """What `Source.stamp` asks for; a file that is written to in place has another one from then on."""
        info = os.fstat(self.fileno())
        return stamp_of(info.st_size, str(info.st_mtime_ns))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Seeks as FileIO does; a place that cannot be gives `BAD_PLACE`, an error code of FFmpeg."""
        try:
            return super().seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return BAD_PLACE


class PieceSource(io.RawIOBase):
    """A source that comes in pieces, whatever they are: a subclass sets `size` and has `_piece`."""

    size: int
    name: str
    damage: str | None = None
    _position = 0

    @abstractmethod
    def _piece(self, position: int) -> tuple[int, bytes]:
        """Where the piece that holds a position begins, and its bytes. Raises MediaError."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """A place that cannot be gives `BAD_PLACE`."""
        base = {0: 0, 1: self._position, 2: self.size}[whence]
        if base + offset < 0:
            return BAD_PLACE
        self._position = base + offset
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        stop = self.size if size < 0 else min(self.size, self._position + size)
        parts = []
        while self._position < stop:
            start, data = self._piece(self._position)
            part = data[self._position - start : stop - start]
            parts.append(part)
            self._position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def stamp_of(size: int, changed: str) -> str:
    """Bytes, and time of change or ETag, in one text; "" if there is nothing to compare."""
    return f"{size}:{changed}" if size else ""


def check_stamp(uri: str, source: Source, stamp: str) -> None:
    """Raises MediaError changed if the file is not the one that `stamp` was taken of ("": any)."""
    if stamp and source.stamp != stamp:
        message = f"{uri}: the file has changed since the run listed it (size or time of change)"
        raise MediaError("changed", message)


def neutral_name(uri: str) -> str:
    """`input` plus the suffix of the uri: a hint for FFmpeg that names nothing."""
    suffix = os.path.splitext(uri)[1]
    return "input" + (suffix if suffix[1:].isascii() and suffix[1:].isalnum() else "")
