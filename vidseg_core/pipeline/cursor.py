"""Where one segment stands: the engine's state plus the rows that are final but not yet a whole part.

Invariant: shards enter in order (``shard == next_shard``), parts leave in order (``next_part``), part ``p``
holds exactly the frames that shard ``p`` brought, and ``from_bytes(to_bytes())`` goes on with the very same
rows. The bytes are what a restarted actor, or a resumed job, continues from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from vidseg_core.engine import FrameResult
from vidseg_core.engine.regions import RegionStates, restored
from vidseg_core.engine.state import SegmentState
from vidseg_core.pipeline.saved import CursorError, Totals, seal, unseal
from vidseg_core.store.mask_codec import decode_mask, encode_mask

ROW_FIELDS = tuple(field.name for field in fields(FrameResult) if field.name != "labels_HW")
"""What a frame's row says besides its mask."""


@dataclass(slots=True)
class SegmentCursor:
    """One segment on its way through the engine."""

    state: SegmentState | RegionStates
    next_shard: int = 0
    next_part: int = 0
    waiting: deque[int] = field(default_factory=deque)
    ready: list[FrameResult] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)

    def take_shard(self, shard: int, frames: int) -> None:
        """Accept shard number ``shard`` with ``frames`` frames."""
        if shard != self.next_shard:
            raise CursorError(f"shard {shard} came while {self.next_shard} is due")
        self.next_shard += 1
        self.waiting.append(frames)

    def add(self, rows: Sequence[FrameResult]) -> None:
        """Frames that became final, in order."""
        self.ready.extend(rows)
        self.totals.frames += len(rows)
        self.totals.keys += sum(row.is_key for row in rows)
        self.totals.corrupt += sum(row.is_corrupt for row in rows)
        for row in rows:
            if row.key_share is not None:
                self.totals.key_share = (self.totals.key_share or 0.0) + row.key_share
            if row.filled_by:
                self.totals.count_filled(row.filled_by)

    def pop_parts(self) -> list[tuple[int, list[FrameResult]]]:
        """The parts that are whole now: (part number, rows)."""
        parts = []
        while self.waiting and len(self.ready) >= self.waiting[0]:
            size = self.waiting.popleft()
            parts.append((self.next_part, self.ready[:size]))
            self.ready = self.ready[size:]
            self.next_part += 1
        return parts

    def totals_dict(self) -> dict[str, Any]:
        """The sums as plain data."""
        return asdict(self.totals)

    def to_bytes(self) -> bytes:
        """Magic, a JSON header, the engine's state, the run-length masks of the rows in ``ready``.

        CRC at the end.
        """
        masks = [encode_mask(row.labels_HW) for row in self.ready]
        state = self.state.to_bytes()
        header = {
            "next_shard": self.next_shard,
            "next_part": self.next_part,
            "waiting": list(self.waiting),
            "totals": asdict(self.totals),
            "state_bytes": len(state),
            "rows": [_row_header(row, len(mask)) for row, mask in zip(self.ready, masks, strict=True)],
        }
        return seal(header, state, *masks)

    @classmethod
    def from_bytes(cls, data: bytes) -> SegmentCursor:
        """Inverse of ``to_bytes``; ``CursorError`` on damaged or foreign bytes."""
        header, offset = unseal(data)
        end = offset + header["state_bytes"]
        cursor = cls(
            state=restored(data[offset:end]),
            next_shard=header["next_shard"],
            next_part=header["next_part"],
            waiting=deque(header["waiting"]),
            totals=Totals(**header["totals"]),
        )
        for row in header["rows"]:
            height, width = row.pop("shape")
            size = row.pop("mask_bytes")
            labels = decode_mask(data[end : end + size], height, width)
            cursor.ready.append(FrameResult(**row, labels_HW=labels))
            end += size
        return cursor


def _row_header(row: FrameResult, mask_bytes: int) -> dict:
    header = {name: _plain(getattr(row, name)) for name in ROW_FIELDS}
    return header | {"shape": list(row.labels_HW.shape), "mask_bytes": mask_bytes}


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
