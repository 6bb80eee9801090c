"""One digest of a run's content that is blind to how it is cut into files, for tests and benchmarks.

A row is its columns in schema order: fixed-width little-endian numbers, and bytes and strings with their
length before them; a number that may be null has a byte before it that says so.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Collection, Mapping
from typing import Any

from vidseg_core.store.run import Run, open_run
from vidseg_core.store.schema import frames_schema

_TRIES = 3


def run_digest(path: str | os.PathLike[str], *, without: Collection[str] = ()) -> str:
    """SHA-256, hexadecimal, over all frame rows of the run, independent of how they are cut into files.

    `without`: ids of videos to leave out.

    Videos come in the order of their folders (`video=<id>/`), frames in theirs. Memory: a row group and one
    video's listing. `StoreError` if a frame comes twice or out of order.
    """
    run = open_run(path)
    total = hashlib.sha256()
    for video_id, _ in run.files():
        if video_id not in without:
            total.update(_video_digest(run, video_id))
    return total.hexdigest()


def _video_digest(run: Run, video_id: str) -> bytes:
    """Of one video; begun again if a compaction took a file away under our eyes."""
    for attempt in range(_TRIES):
        digest = hashlib.sha256(_sized(video_id.encode()))
        try:
            for row in run.rows(video_id):
                digest.update(_row_bytes(row))
            break
        except FileNotFoundError:
            if attempt == _TRIES - 1:
                raise
    return digest.digest()


def _row_bytes(row: Mapping[str, Any]) -> bytes:
    """A row of a frame table, as `Run.rows` yields it; different rows have different bytes."""
    return b"".join(_value_bytes(row[name]) for name in frames_schema(row).names)


def _sized(data: bytes) -> bytes:
    """The bytes with their length before them."""
    return struct.pack("<q", len(data)) + data


def _value_bytes(value: Any) -> bytes:
    if value is None:
        return b"\0"
    if isinstance(value, bool):
        return b"\1\1" if value else b"\1\0"
    if isinstance(value, int):
        return struct.pack("<q", value)
    if isinstance(value, float):
        return b"\1" + struct.pack("<d", value)
    if isinstance(value, str):
        return _sized(value.encode())
    if isinstance(value, bytes):
        return _sized(value)
    return _sized(struct.pack(f"<{len(value)}q", *value))
