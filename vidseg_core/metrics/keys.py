"""How many key frames a schedule took, and how they lie: AKI, CKI, calls of the key net saved.

Model: a schedule is one boolean a frame, true where N ran, and the first frame of a segment always is a key.
AKI (average key interval) is frames over keys (DVRL section 4.1); CKI (consecutive key interval) is the
distance from one key to the next (DVRL Fig. 6). Schedules of several segments are joined by `join`, never by
concatenation, so that no interval crosses a segment's edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class KeyStatistics:
    """Totals of one schedule or of several."""

    frames: int
    keys: int
    intervals: np.ndarray
    """int64, every consecutive key interval (frames), in order; empty with fewer than two keys in each
    segment."""

    @property
    def aki(self) -> float:
        """Average key interval, frames per key; NaN without keys."""
        return self.frames / self.keys if self.keys else float("nan")

    @property
    def calls_saved(self) -> float:
        """Share of frames on which the key net did not run, 0..1; 0 without frames."""
        return 1.0 - self.keys / self.frames if self.frames else 0.0


def key_statistics(is_key: Sequence[bool] | np.ndarray) -> KeyStatistics:
    """Statistics of one segment's schedule, in frame order."""
    keys_T = np.asarray(is_key, dtype=bool)
    positions = np.flatnonzero(keys_T)
    return KeyStatistics(
        frames=len(keys_T), keys=len(positions), intervals=np.diff(positions).astype(np.int64)
    )


def join(parts: Iterable[KeyStatistics]) -> KeyStatistics:
    """Totals over segments or videos."""
    listed = list(parts)
    return KeyStatistics(
        frames=sum(part.frames for part in listed),
        keys=sum(part.keys for part in listed),
        intervals=np.concatenate([np.empty(0, dtype=np.int64), *(part.intervals for part in listed)]),
    )
