"""Objects as files below one directory.

A put writes a temporary file in the target's directory, syncs it, and gives it its name in one step of the
file system: `link` for put-if-absent (fails if the name exists), `replace` for put. Temporary names are
`.<random>.tmp`: listings skip them, no glob for `*.parquet` meets them, and a writer killed half-way leaves
nothing else. `sweep` removes old ones.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vidseg_core.local_name import python_name
from vidseg_core.store.atomic import write_beside
from vidseg_core.store.errors import StoreError, WriteError
from vidseg_core.store.keys import ObjectInfo, check_key

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
_LOCK_NAME = ".commit.lock"
_SCAN_TRIES = 5
_NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}


class LocalStore:
    """`ObjectStore` on a file system shared by all writers (one machine's disk, or NFS)."""

    def __init__(self, root: str) -> None:
        self.root = os.path.expanduser(root)
        self._dir = os.path.abspath(python_name(self.root))

    def __repr__(self) -> str:
        return f"LocalStore({self.root!r})"

    def path(self, key: str) -> str:
        """The absolute path of an object's file."""
        return os.path.join(self._dir, *check_key(key).split("/"))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self.path(key)
        with self._explain(writing=key):
            if os.path.exists(target):
                return False
            temporary = _write_temporary(target, data)
            try:
                created = _link_exclusive(temporary, target)
            finally:
                _unlink_quietly(temporary)
            if created:
                _sync_directory(os.path.dirname(target))
            return created

    def put(self, key: str, data: bytes) -> None:
        target = self.path(key)
        with self._explain(writing=key):
            temporary = _write_temporary(target, data)
            try:
                os.replace(temporary, target)
            except OSError:
                _unlink_quietly(temporary)
                raise
            _sync_directory(os.path.dirname(target))

    def get(self, key: str) -> bytes:
        with self._explain(key), open(self.path(key), "rb") as file:
            return file.read()

    def exists(self, key: str) -> bool:
        return os.path.isfile(self.path(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        with self._explain():
            yield from _walk(os.path.join(self._dir, folder), f"{folder}/" if folder else "", prefix)

    def delete(self, key: str) -> None:
        with self._explain():
            _unlink_quietly(self.path(key))

    def check_writable(self) -> None:
        with self._explain(writing="anything"):
            made = _make_folders(self._dir)
            try:
                os.unlink(_write_temporary(os.path.join(self._dir, "probe"), b""))
            finally:
                for folder in made:  # what is refused after this leaves no empty folder behind
                    with suppress(OSError):
                        os.rmdir(folder)

    def sweep(self, older_than_s: float = 86400.0) -> int:
        """Remove temporary files left by killed writers, if older than this; returns how many."""
        removed = 0
        for folder, _, names in os.walk(self._dir):
            for name in names:
                path = os.path.join(folder, name)
                if name.startswith(".") and name.endswith(".tmp") and _age_s(path) > older_than_s:
                    _unlink_quietly(path)
                    removed += 1
        return removed

    @contextmanager
    def _explain(self, key: str = "", *, writing: str = "") -> Iterator[None]:
        """Turn errors of the file system into `StoreError`; with `key`, also name a missing object.

        `writing`: what finds no place, or an error of the disk, is a `WriteError`.
        """
        try:
            yield
        except FileNotFoundError as error:
            if not key:
                what = "has gone away" if os.path.isdir(self._dir) else "cannot be created, or has gone away"
                raise StoreError(f"output {self.root}: {error.filename} {what}") from error
            raise FileNotFoundError(error.errno, f"no such object in {self.root}", key) from None
        except (NotADirectoryError, FileExistsError) as error:
            culprit = _file_in_the_way(error.filename or self._dir)
            raise StoreError(
                f"output {self.root}: {culprit} is a file where a directory is needed"
            ) from error
        except OSError as error:
            reason = error.strerror or str(error)
            if writing and error.errno not in _NO_RIGHT:
                raise WriteError(f"output {self.root}: cannot write {writing}: {reason}") from error
            at = f" ({error.filename})" if error.filename and error.filename != self._dir else ""
            raise StoreError(f"output {self.root}: {reason}{at}") from error


def _make_folders(folder: str) -> list[str]:
    """Make a folder and those above it; what was not there before, innermost first."""
    missing, place = [], os.path.abspath(folder)
    while not os.path.isdir(place) and place != os.path.dirname(place):
        missing.append(place)
        place = os.path.dirname(place)
    os.makedirs(folder, exist_ok=True)
    return missing


def _write_temporary(target: str, data: bytes) -> str:
    """Write and sync `data` next to `target` under a name that no reader sees; returns that name."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    return write_beside(target, data)


def _link_exclusive(temporary: str, target: str) -> bool:
    """Give the temporary file its name unless the name is taken: exactly one caller gets True."""
    try:
        os.link(temporary, target)
        return True
    except FileExistsError:
        # A network file system may report failure for a link that it made: then the file has two names.
        return os.stat(temporary).st_nlink == 2
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    return _rename_under_lock(temporary, target)


def _rename_under_lock(temporary: str, target: str) -> bool:
    """Put-if-absent for file systems without hard links: the kernel drops the lock if its holder dies."""
    with open(os.path.join(os.path.dirname(target), _LOCK_NAME), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(target):
            return False
        os.rename(temporary, target)
        return True


def _walk(folder: str, key_prefix: str, prefix: str) -> Iterator[ObjectInfo]:
    """Files below `folder` in byte order of the whole key: a directory sorts as its name with a slash."""
    shown = _scan(folder)
    named = {entry.name + "/" if entry.is_dir() else entry.name: entry for entry in shown}
    for name, entry in sorted(named.items()):
        key = key_prefix + name
        if not (key.startswith(prefix) or prefix.startswith(key)):
            continue
        if name.endswith("/"):
            yield from _walk(entry.path, key, prefix)
        elif key.startswith(prefix):
            try:
                found = entry.stat()
                yield ObjectInfo(key, found.st_size, found.st_mtime)
            except FileNotFoundError:
                continue


def _scan(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a directory, read again if it changed meanwhile: a big one is not read in one step."""
    entries: list[os.DirEntry[str]] = []
    try:
        for _ in range(_SCAN_TRIES):
            before = os.stat(folder).st_mtime_ns
            with os.scandir(folder) as found:
                entries = [entry for entry in found if not entry.name.startswith(".")]
            if os.stat(folder).st_mtime_ns == before:
                break
    except (FileNotFoundError, NotADirectoryError):
        return []
    return entries


def _sync_directory(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def _file_in_the_way(path: str) -> str:
    """The part of a path that is a file although the path goes on below it."""
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _age_s(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _unlink_quietly(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
