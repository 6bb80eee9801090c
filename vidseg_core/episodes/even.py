"""What one more key is worth when keys come at even intervals: the exchange rate of quality and keys.

Model: the share of quality that even keys every n frames lose, averaged over all starts of an interval, grows
about as a power of n,

    loss(n) = a n^b,

and T frames with T / n keys lose T loss(n). So one more key gains - d(T loss(n)) / d(T / n) = a b n^(b + 1).

Legend: R rows, L horizon, N intervals.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from vidseg_core.episodes.table import EpisodeError
from vidseg_core.episodes.table_set import TableSet

SPREAD = 4.0
"""Intervals from `interval` / SPREAD to `interval` * SPREAD (as far as the tables know) are looked at."""
LOOKS = 12


def even_price(tables: TableSet, interval: float, sides: Literal["one", "two"] = "one") -> float:
    """Total quality that one more key is worth at this interval; `EpisodeError` if there is no telling."""
    known = [
        (n, loss) for n in _intervals(tables, interval, sides) if (loss := even_loss(tables, n, sides)) > 0
    ]
    if len(known) < 2:
        raise EpisodeError(
            f"what a key is worth every {interval:g} frames cannot be found from these tables (their clips "
            "are too short, or nothing is lost by propagation); leave --episode.interval out"
        )
    n_N, loss_N = np.log(np.array(known)).T
    b = max(float(np.polyfit(n_N, loss_N, 1)[0]), 0.1)
    log_a = float(np.mean(loss_N - b * n_N))
    return float(np.exp(log_a) * b * interval ** (b + 1.0))


def even_loss(tables: TableSet, interval: int, sides: Literal["one", "two"] = "one") -> float:
    """Quality of a frame that is lost, against keys everywhere, when keys come every `interval` frames; mean
    over all keys after which there is a whole interval. NaN if there is none."""
    own_R = tables.quality_RL1[:, 0].astype(np.float64)
    shown_R, best_R, whole_R = own_R.copy(), own_R.copy(), np.isfinite(own_R)
    for distance in range(1, interval):
        best_R += np.append(own_R[distance:], np.full(distance, np.nan))
        shown_R += tables.quality_RL1[:, distance]
    if sides == "two":
        if tables.two_sided_RL1 is None:
            raise EpisodeError("these tables hold no two-sided qualities; build them, or use sides one")
        shown_R = own_R + tables.two_sided_RL1[:, interval]
    lost_R = (best_R - shown_R)[whole_R]
    lost_R = lost_R[np.isfinite(lost_R)]
    return float(lost_R.mean()) / interval if len(lost_R) else float("nan")


def _intervals(tables: TableSet, interval: float, sides: Literal["one", "two"]) -> list[int]:
    """Lengths to look at; two-sided qualities are there for multiples of their stride only."""
    step = max(1, int(tables.fingerprint.get("two_sided_stride") or 1)) if sides == "two" else 1
    wanted = np.geomspace(max(2.0, interval / SPREAD), interval * SPREAD, LOOKS)
    most = min(tables.horizon, len(tables.quality_RL1) - 1)
    return sorted({n for w in wanted if (n := int(max(1, round(w / step)) * step)) <= most})
