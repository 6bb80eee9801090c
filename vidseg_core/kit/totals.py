"""Sums over the videos of a run.

Model: rows of `videos/` come in batches and are forgotten; sums stay, and the rows that a person must see.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidseg_core.store.schema import VIDEOS_SCHEMA

STATUSES = ("ok", "partial", "quarantined")
_SUMMED = ("decoded_frames", "corrupt_frames", "keys", "duration_s", "cpu_s", "gpu_s")


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What all rows come to."""

    figures: dict[str, Any]
    """videos, ok, partial, quarantined, frames, corrupt_frames, keys, aki (None without keys),
    key_net_calls_saved, duration_s (seconds of video), cpu_s, gpu_s."""
    not_ok: pa.Table
    """Rows of videos that are partial or quarantined (`VIDEOS_SCHEMA`)."""

    @property
    def exit_code(self) -> int:
        """0, or 3 when a video is quarantined."""
        return 3 if self.figures["quarantined"] else 0


def totals_of(batches: Iterable[pa.Table]) -> Totals:
    """The totals of a run's rows (`VIDEOS_SCHEMA`)."""
    videos, sums = dict.fromkeys(STATUSES, 0), dict.fromkeys(_SUMMED, 0.0)
    aside = [VIDEOS_SCHEMA.empty_table()]
    for rows in batches:
        for count in pc.value_counts(rows["status"]).to_pylist():  # type: ignore[attr-defined]
            videos[count["values"]] += count["counts"]
        for name in _SUMMED:
            sums[name] += pc.sum(rows[name]).as_py() or 0  # type: ignore[attr-defined]
        aside.append(rows.filter(pc.field("status") != "ok"))
    frames, keys = int(sums["decoded_frames"]), int(sums["keys"])
    figures = {
        "videos": sum(videos.values()),
        **videos,
        "frames": frames,
        "corrupt_frames": int(sums["corrupt_frames"]),
        "keys": keys,
        "aki": frames / keys if keys else None,
        "key_net_calls_saved": frames - keys,
        **{name: sums[name] for name in ("duration_s", "cpu_s", "gpu_s")},
    }
    return Totals(figures=figures, not_ok=pa.concat_tables(aside))
