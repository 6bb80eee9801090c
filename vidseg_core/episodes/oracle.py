"""The best schedule that N and the propagator allow, by dynamic programming over the tables.

Model: let keys k and n follow each other. What the frames from k up to n - 1 are worth depends on k and n
alone, one-sided (the sum of `quality_TL1[k, :n - k]`) and two-sided (the key's own quality and
`two_sided_TL1[k, n - k]`). So with V_m[n] the best total of the frames before n, if m keys serve them and
the next key is n,

    V_m[n] = max over k of V_{m-1}[k] + value(k, n),        V_0[0] = 0,

and V_m[T] is the best that m keys can do (with two sides the last interval is open, and one-sided). That is
exact: no schedule with m keys and intervals up to `max_interval` is better.

A corpus under one budget: the curves of its clips are merged. `exact` tries every division of the budget
(again dynamic programming); `hull` follows the concave hulls of the curves, and says by how much it may miss
the best. Regions of a frame under one budget of pixels are divided so, too: a key costs what N sees of it.

With low latency key n takes effect D frames later, or with the next key if that comes before. Until then k
goes on, for e = min(D, length of n's interval) frames. So the best is kept for every e, with those frames:

    A_m[n, e] = max over k of A_{m-1}[k, min(D, n - k)] + value(k, n) + late(k, n, e),

where value(k, n) are the frames from k + D (the first key, from 0) up to n - 1, and late(k, n, e) the e
frames from n on, as k serves them. Without a delay D = 0 and A[n, 0] is V[n].

Legend: T frames, L longest interval (1 = + 1), m keys, M most keys, E = 1 + min(D, L).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.walk import counts_T, known_keys_T, two_sided_of

EXACT_WORK = 500_000_000
"""Steps up to which a corpus is divided exactly (a few seconds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The best total quality of one clip for every number of keys."""

    total_M1: np.ndarray
    """float64 [M + 1]: by number of keys; -inf where no schedule has so many (or so few)."""
    counted: int
    """Frames that count."""
    frames: int
    before_MTE: np.ndarray
    """int16 or int32 [M, T + 1, E]: length of the interval that ends at frame n, in the best schedule that
    serves the frames before n, and e from n on, with m + 1 keys; 0: there is none."""

    @property
    def least(self) -> int:
        """The fewest keys that any schedule has."""
        return int(np.flatnonzero(np.isfinite(self.total_M1))[0])

    def schedule(self, keys: int) -> np.ndarray:
        """int64 [m]: a best schedule with so many keys; `EpisodeError` if there is none."""
        if not 0 < keys < len(self.total_M1) or not np.isfinite(self.total_M1[keys]):
            raise EpisodeError(
                f"no schedule of {self.frames} frames has {keys} keys; between {self.least} and "
                f"{len(self.total_M1) - 1} are possible"
            )
        places, end, late = [], self.frames, 0
        for number in range(keys, 0, -1):
            length = int(self.before_MTE[number - 1, end, late])
            end, late = end - length, min(length, self.before_MTE.shape[2] - 1)
            places.append(end)
        return np.array(places[::-1], dtype=np.int64)

    def best_within(self, keys: int) -> int:
        """The number of keys, at most `keys`, with the highest total: more is not always better."""
        return int(np.argmax(self.total_M1[: keys + 1]))


def one_sided_curve(
    table: EpisodeTable, *, max_interval: int | None = None, most_keys: int | None = None, delay: int = 0
) -> Curve:
    """The best one-sided schedules of a segment; `delay`: with low latency, as `walk` has it."""
    delay = min(delay, table.horizon)
    value_TL1 = one_sided_values(table, delay)
    return _curve(table, value_TL1, value_TL1, max_interval, most_keys, _late_values(table, delay))


def two_sided_curve(
    table: EpisodeTable, *, max_interval: int | None = None, most_keys: int | None = None
) -> Curve:
    """The best two-sided schedules of a segment; `EpisodeError` without a two-sided table."""
    return _curve(table, two_sided_values(table), one_sided_values(table), max_interval, most_keys)


def one_sided_values(table: EpisodeTable, delay: int = 0) -> np.ndarray:
    """float64 [T, L + 1]: at [k, d] the total of the frames from key k, or with a delay from as many frames
    after it (but for the first key), up to k + d - 1, if the next key comes d frames after it; -inf: not
    possible.

    An interval of d = L + 1 frames is left out: L is the longest that the engine would allow.
    """
    value_TL1 = _totals(table)[:, :-1]
    value_TL1[1:] -= value_TL1[1:, np.minimum(np.arange(value_TL1.shape[1]), delay)]
    value_TL1[~known_keys_T(table)] = -np.inf
    return _inside(value_TL1)


def _late_values(table: EpisodeTable, delay: int) -> list[np.ndarray]:
    """By e from 1 to `delay`, float64 [T, L + 1]: at [k, d] the total of e frames from k + d on, as key k
    serves them; -inf where the table does not know that far."""
    total_TL2 = _totals(table)
    found = []
    for count in range(1, delay + 1):
        late_TL1 = np.full(table.quality_TL1.shape, -np.inf)
        known = total_TL2.shape[1] - count
        late_TL1[:, :known] = total_TL2[:, count:] - total_TL2[:, :known]
        found.append(late_TL1)
    return found


def _totals(table: EpisodeTable) -> np.ndarray:
    """float64 [T, L + 2]: at [k, d] the total of the d frames from k on, as key k serves them; frames without
    truth, and past the end, add nothing."""
    total_TL2 = np.zeros((table.frames, table.horizon + 2))
    quality_TL1 = np.nan_to_num(table.quality_TL1.astype(np.float64), nan=0.0)
    np.cumsum(quality_TL1, axis=1, out=total_TL2[:, 1:])
    return total_TL2


def two_sided_values(table: EpisodeTable) -> np.ndarray:
    """float64 [T, L + 1]: at [k, d] the total of key k and the frames between it and key k + d."""
    own_T = np.nan_to_num(table.key_quality_T.astype(np.float64), nan=0.0)
    value_TL1 = own_T[:, None] + two_sided_of(table).astype(np.float64)
    value_TL1[np.isnan(value_TL1)] = -np.inf
    value_TL1[~known_keys_T(table)] = -np.inf
    return _inside(value_TL1)


def _inside(value_TL1: np.ndarray) -> np.ndarray:
    """No interval of length 0, none that ends after the segment."""
    frames = len(value_TL1)
    end_TL1 = np.arange(frames)[:, None] + np.arange(value_TL1.shape[1])
    value_TL1[end_TL1 > frames] = -np.inf
    value_TL1[:, 0] = -np.inf
    return value_TL1


def _curve(
    table: EpisodeTable,
    closed_TL1: np.ndarray,
    open_TL1: np.ndarray,
    max_interval: int | None,
    most_keys: int | None,
    late: Sequence[np.ndarray] = (),
) -> Curve:
    longest = table.horizon if max_interval is None else max_interval
    if not 1 <= longest <= table.horizon:
        raise EpisodeError(
            f"clip {table.clip}: max_interval must be from 1 to the table's horizon {table.horizon}, "
            f"not {longest}"
        )
    most = table.frames if most_keys is None else min(most_keys, table.frames)
    counted = int(counts_T(table).sum())
    curve = curve_of(closed_TL1, open_TL1, longest=longest, most=most, counted=counted, late=late)
    if not np.isfinite(curve.total_M1).any():
        raise EpisodeError(
            f"clip {table.clip}, segment {table.segment}: {table.frames} frames cannot be served by {most} "
            f"keys with intervals up to {longest}"
        )
    return curve


def curve_of(
    closed_TL1: np.ndarray,
    open_TL1: np.ndarray,
    *,
    longest: int,
    most: int,
    counted: int,
    late: Sequence[np.ndarray] = (),
) -> Curve:
    """From what intervals are worth: at [k, d] from key k up to frame k + d, which is the next key, or, open,
    the end; -inf: not possible. `most`: keys."""
    ending_TL = _by_end(closed_TL1, open_TL1, longest)
    late_ETL = [_by_end(late_TL1, late_TL1, longest) for late_TL1 in late[:longest]]
    total_M1, before_MTE = _best(ending_TL, late_ETL, most)
    return Curve(total_M1=total_M1, before_MTE=before_MTE, counted=counted, frames=len(closed_TL1))


def _by_end(closed_TL1: np.ndarray, open_TL1: np.ndarray, longest: int) -> np.ndarray:
    """value [T + 1, L]: at [n, j] of the interval that ends at n and has L - j frames; -inf: none."""
    frames = len(closed_TL1)
    ending = np.full((frames + 1, longest), -np.inf)
    for length in range(1, min(longest, frames) + 1):
        ending[length:frames, longest - length] = closed_TL1[: frames - length, length]
        ending[frames, longest - length] = open_TL1[frames - length, length]
    return ending


def _best(ending_TL: np.ndarray, late_ETL: Sequence[np.ndarray], most: int) -> tuple[np.ndarray, np.ndarray]:
    """(total by number of keys, interval before each end for backtracking)."""
    ends, longest = ending_TL.shape
    value_TE = np.full((longest + ends, 1 + len(late_ETL)), -np.inf)
    value_TE[longest] = 0.0
    total_M1 = np.full(most + 1, -np.inf)
    length_type = np.int16 if longest < 2**15 else np.int32
    before_MTE = np.zeros((most, ends, value_TE.shape[1]), dtype=length_type)
    rows, lengths = np.arange(ends), longest - np.arange(longest)
    late_L = np.minimum(lengths, len(late_ETL))
    for number in range(most):
        # window j of end n is A[n - L + j], the value before an interval of L - j frames
        windows_TEL = np.lib.stride_tricks.sliding_window_view(value_TE[:-1], longest, axis=0)
        sums = windows_TEL[:, late_L, np.arange(longest)] + ending_TL
        total_M1[number + 1] = sums[-1].max()
        for e, late_TL in enumerate((0.0, *late_ETL)):
            with_late = sums + late_TL
            best = with_late.argmax(axis=1)
            top = with_late[rows, best]
            before_MTE[number, :, e] = np.where(np.isfinite(top), lengths[best], 0)
            value_TE[longest:, e] = top
        value_TE[-1] = -np.inf  # the end is no key
    return total_M1, before_MTE


# --- a corpus under one budget -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusPlan:
    """How a budget of keys is divided among clips."""

    keys: tuple[int, ...]
    """Number of keys of each clip."""
    total: float
    miss: float
    """The best total is at most this much higher: 0 when found exactly."""
    how: Literal["exact", "hull"]


def divide(
    curves: Sequence[Curve],
    most: float,
    *,
    how: Literal["auto", "exact", "hull"] = "auto",
    costs: Sequence[float] | None = None,
    worth: Sequence[float] | None = None,
) -> CorpusPlan:
    """The division of at most `most` keys with the highest total; `EpisodeError` if they are too few.

    `costs`: what a key of each curve takes of `most`, 1 where nothing is said; with different ones the hull
    is followed. `worth`: what a curve's total counts, 1 where nothing is said.
    """
    if not curves:
        raise EpisodeError("no clips to divide keys among")
    costs = [1.0] * len(curves) if costs is None else list(costs)
    least = sum(cost * curve.least for cost, curve in zip(costs, curves, strict=True))
    if least > most:
        raise EpisodeError(f"{len(curves)} clips need {least:g} keys at least, the budget is {most:g}")
    counts = [int(most // cost) for cost in costs]
    totals = [curve.total_M1[: count + 1] for curve, count in zip(curves, counts, strict=True)]
    if worth is not None:
        totals = [weight * total for weight, total in zip(worth, totals, strict=True)]
    alike = len(set(costs)) == 1
    if how == "auto":
        work = sum(len(total) for total in totals) * counts[0]
        how = "exact" if alike and work <= EXACT_WORK else "hull"
    if how == "exact" and not alike:
        raise EpisodeError("keys of different costs are divided by hulls")
    return _divide_exactly(totals, counts[0]) if how == "exact" else _divide_by_hull(totals, costs, most)


def _divide_exactly(totals: Sequence[np.ndarray], most_keys: int) -> CorpusPlan:
    best = np.zeros(most_keys + 1)
    taken = []
    for total in totals:
        merged = np.full(most_keys + 1, -np.inf)
        took = np.zeros(most_keys + 1, dtype=np.int32)
        for keys in np.flatnonzero(np.isfinite(total)):
            candidate = best[: most_keys + 1 - keys] + total[keys]
            better = candidate > merged[keys:]
            merged[keys:][better] = candidate[better]
            took[keys:][better] = keys
        best = merged
        taken.append(took)
    left, keys_of = most_keys, []
    for took in reversed(taken):
        keys_of.append(int(took[left]))
        left -= keys_of[-1]
    return CorpusPlan(keys=tuple(keys_of[::-1]), total=float(best[most_keys]), miss=0.0, how="exact")


def _divide_by_hull(totals: Sequence[np.ndarray], costs: Sequence[float], most: float) -> CorpusPlan:
    """Steepest hull edges first; the edge that does not fit bounds what is missed (weak duality)."""
    hulls = [_rising_hull(total) for total in totals]
    keys_of = [int(hull[0]) for hull in hulls]
    edges = []
    for clip, (hull, total, cost) in enumerate(zip(hulls, totals, costs, strict=True)):
        for a, b in zip(hull[:-1], hull[1:], strict=True):
            edges.append((-(total[b] - total[a]) / ((b - a) * cost), clip, int(a), int(b)))
    left = most - sum(cost * keys for cost, keys in zip(costs, keys_of, strict=True))
    bound: float | None = None
    blocked: set[int] = set()
    for falling, clip, a, b in sorted(edges):
        if clip in blocked:
            continue
        if (b - a) * costs[clip] <= left:
            keys_of[clip], left = b, left - (b - a) * costs[clip]
            continue
        if bound is None:  # the relaxed problem would fill what is left at this slope, and be done
            bound = _sum_at(totals, keys_of) - falling * left
        blocked.add(clip)
    total = _sum_at(totals, keys_of)
    miss = 0.0 if bound is None else max(0.0, bound - total)
    return CorpusPlan(keys=tuple(keys_of), total=total, miss=miss, how="hull")


def _sum_at(totals: Sequence[np.ndarray], keys_of: Sequence[int]) -> float:
    return float(sum(total[keys] for total, keys in zip(totals, keys_of, strict=True)))


def _rising_hull(total: np.ndarray) -> list[int]:
    """Numbers of keys on the concave hull, up to the highest total."""
    hull: list[int] = []
    for keys in np.flatnonzero(np.isfinite(total)):
        while len(hull) >= 2 and _below(total, hull[-2], hull[-1], int(keys)):
            hull.pop()
        hull.append(int(keys))
    top = int(np.argmax(total[hull]))
    return hull[: top + 1]


def _below(total: np.ndarray, a: int, b: int, c: int) -> bool:
    """Is point b on or below the line from a to c?"""
    return (total[b] - total[a]) * (c - a) <= (total[c] - total[a]) * (b - a)


def share_of_gap(value: float, fixed: float, oracle: float) -> float:
    """Share of the way from the fixed schedule to the best one: 0 as `fixed`, 1 as the oracle, below 0 worse.

    NaN where the oracle is no better than `fixed`.
    """
    return (value - fixed) / (oracle - fixed) if oracle > fixed else float("nan")
