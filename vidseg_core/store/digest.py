"""The canonical bytes of a row, for a digest of a run's content that is blind to how it is cut into files.

A row is its columns in schema order: fixed-width little-endian numbers, and bytes and strings with their
length before them; a number that may be null has a byte before it that says so.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from vidseg_core.store.schema import frames_schema


def row_bytes(row: Mapping[str, Any]) -> bytes:
    """A row of a frame table, as `Run.rows` yields it; different rows have different bytes."""
    return b"".join(_value_bytes(row[name]) for name in frames_schema(row).names)


def sized(data: bytes) -> bytes:
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
        return sized(value.encode())
    if isinstance(value, bytes):
        return sized(value)
    return sized(struct.pack(f"<{len(value)}q", *value))
