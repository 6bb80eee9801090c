"""Files that get their name when they are whole.

Model: the bytes go into a file beside the target, under a name that no reader sees (`.<random>.tmp`); it gets
the target's name in one step at the end. Every file that we leave on a disk is written this way.
Invariant: a full disk, or a kill at any moment, leaves what was there before and nothing half-written
(after a kill: a temporary file). What fails is a `WriteError` that names the target and the reason.
"""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from vidseg_core.store.errors import WriteError

__all__ = ["make_folder", "temporary_beside", "whole_file", "whole_text", "write_beside", "write_whole"]


def write_whole(path: str | os.PathLike[str], data: bytes, *, sync: bool = True) -> None:
    """Give `path` these bytes. `sync`: they are on the disk when this returns."""
    with whole_file(path, sync=sync) as file:
        file.write(data)


@contextmanager
def whole_file(path: str | os.PathLike[str], *, sync: bool = False) -> Iterator[BinaryIO]:
    """A file to write, to seek in and to read back; it becomes `path` if the block ends without an error."""
    target = os.fspath(path)
    temporary = temporary_beside(target)
    file = io.BufferedRandom(_Sink(target, temporary))
    try:
        yield cast(BinaryIO, file)
        with _naming(target):
            file.flush()
            if sync:
                os.fsync(file.fileno())
            file.close()
            os.replace(temporary, target)
    except BaseException:
        _discard(file, temporary)
        raise


@contextmanager
def whole_text(path: str | os.PathLike[str], *, newline: str | None = None) -> Iterator[TextIO]:
    """A text file that is there whole or not at all, written as UTF-8."""
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline=newline)
        try:
            yield text
            text.flush()
        finally:
            with suppress(WriteError):
                text.detach()


def write_beside(target: str, data: bytes) -> str:
    """Write and sync `data` next to `target` under a name that no reader sees; returns that name.

    Raises OSError, and leaves nothing then.
    """
    temporary = temporary_beside(target)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return temporary


def temporary_beside(target: str) -> str:
    """A name in the target's folder that no reader sees and nobody else has."""
    return os.path.join(os.path.dirname(target), f".{uuid.uuid4().hex}.tmp")


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder and those above it."""
    with _naming(os.fspath(folder)):
        Path(folder).mkdir(parents=True, exist_ok=True)


class _Sink(io.FileIO):
    """The temporary file of a target: what the system refuses is said of the target."""

    def __init__(self, target: str, temporary: str) -> None:
        self._target = target
        with _naming(target):
            super().__init__(temporary, "x+")

    def write(self, data: Any, /) -> int:
        with _naming(self._target):
            return super().write(data)

    def close(self) -> None:
        with _naming(self._target):
            super().close()


@contextmanager
def _naming(target: str) -> Iterator[None]:
    """Turns errors of the file system into `WriteError`."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write {target}: {error.strerror or error}") from error


def _discard(file: io.BufferedRandom, temporary: str) -> None:
    """Close and remove a temporary file whose last bytes may have found no place."""
    with suppress(Exception):
        file.close()
    with suppress(OSError):
        file.raw.close()
    with suppress(OSError):
        os.unlink(temporary)
