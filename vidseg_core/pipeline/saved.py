"""The outer layer of saved segment state: its header, readable without an engine (or torch)."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

MAGIC = b"vsc1"


class CursorError(RuntimeError):
    """A shard came out of turn, or saved state cannot be read."""


@dataclass(slots=True)
class Totals:
    """Sums over a segment so far; seconds are time spent, so they differ from run to run."""

    frames: int = 0
    keys: int = 0
    corrupt: int = 0
    decode_s: float = 0.0
    """CPU seconds of decode processes."""
    engine_s: float = 0.0
    """CPU seconds of engines."""
    device_s: float = 0.0
    """Seconds by the clock for which an engine held its share of a GPU, or a core."""
    error: str | None = None
    filled: dict[str, int] = field(default_factory=dict)
    """Frames by what filled them, where the propagator chooses."""
    evidence: str = ""
    """What the last choice followed from."""
    key_share: float | None = None
    """With regions: frames' worth of pixels that N saw, overlap counted."""

    def count_filled(self, filled_by: str) -> None:
        """A frame that says what filled it, and in brackets why."""
        way, _, why = filled_by.partition(" (")
        self.filled[way] = self.filled.get(way, 0) + 1
        self.evidence = why.removesuffix(")") or self.evidence


def seal(header: dict[str, Any], *blobs: bytes) -> bytes:
    """Magic, length and JSON of ``header``, the blobs, and a CRC over all of it."""
    text = json.dumps(header).encode()
    body = b"".join([MAGIC, struct.pack("<I", len(text)), text, *blobs])
    return body + struct.pack("<I", zlib.crc32(body))


def unseal(data: bytes) -> tuple[dict[str, Any], int]:
    """The header of sealed bytes and the offset of the first blob.

    ``CursorError`` if they are not ours or damaged.
    """
    if len(data) < 12 or data[:4] != MAGIC:
        raise CursorError("saved segment state has an unknown format (written by another version?)")
    if zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise CursorError("saved segment state is damaged")
    (size,) = struct.unpack("<I", data[4:8])
    return json.loads(data[8 : 8 + size]), 8 + size


@dataclass(slots=True)
class Saved:
    """What a saved cursor says about progress."""

    totals: Totals
    frames_in_parts: int
    """Final frames that have left in whole parts; the others wait in the cursor."""
    keys_in_parts: int


def read_saved(data: bytes) -> Saved:
    """Only the sums of a saved cursor."""
    header, _ = unseal(data)
    totals, waiting = Totals(**header["totals"]), header["rows"]
    return Saved(
        totals=totals,
        frames_in_parts=totals.frames - len(waiting),
        keys_in_parts=totals.keys - sum(row["is_key"] for row in waiting),
    )
