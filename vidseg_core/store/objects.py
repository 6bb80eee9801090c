"""A flat key space on a local disk or on S3, with one primitive that matters: `put_if_absent`.

Model: an output is a set of objects, named by posix relative keys. A reader sees an object whole or not at
all. Of any number of `put_if_absent` of one key exactly one creates it; the others get `False` and find
the winner's bytes under the key, whenever they look. Everything else (parts, resume, two drivers on one
output) rests on this invariant.

Both stores list keys in the byte order of the whole key, so a listing of a directory equals one of a bucket.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Protocol

from vidseg_core.store.errors import StoreError
from vidseg_core.store.keys import ObjectInfo
from vidseg_core.store.local_store import LocalStore


class ObjectStore(Protocol):
    """Objects under one root. Implementations are picklable and make their clients lazily, one per process.

    Every method raises `StoreError` if the output cannot be reached or refuses, and `ValueError` for a key
    that `keys.check_key` refuses.
    """

    @property
    def root(self) -> str:
        """Where the objects live, as the user wrote it (without a trailing slash)."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write `data` unless the key exists. True: written by this call. False: somebody has written it."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write `data`, atomically replacing what is there."""
        ...

    def get(self, key: str) -> bytes:
        """The whole object; `FileNotFoundError` if there is none."""
        ...

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix` (any string), in byte order of the key."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; removing what is not there is fine."""
        ...

    def check_writable(self) -> None:
        """Raise `StoreError` with the reason if nothing can be committed here. Creates a local root."""
        ...


def open_store(output: str | os.PathLike[str]) -> ObjectStore:
    """The store at `output`: a local path (also `file://`), or `s3://bucket/prefix`. Touches nothing yet."""
    from vidseg_core.store.s3_store import S3Store  # imports boto3: not for local runs

    output = os.fspath(output)
    if output.startswith("s3://"):
        return S3Store(output)
    scheme, separator, rest = output.partition("://")
    if separator and scheme != "file":
        raise StoreError(f"output {output}: unknown scheme {scheme} (use a local path or s3://bucket/prefix)")
    if not output.strip():
        raise StoreError("output: the path is empty")
    return LocalStore(rest if separator else output)
