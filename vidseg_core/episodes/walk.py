"""A schedule on a table: what it is worth, and which one a scheduler that scores would have made.

Model: the keys of a schedule cut a segment into intervals; frame k + d of the interval of key k has quality
`quality_TL1[k, d]`. Two-sided, the frames between keys k and n are worth `two_sided_TL1[k, n - k]` together,
and those after the last key are propagated from it alone. Nothing else is known or needed: a schedule that
took the engine minutes is valued in microseconds, with the engine's own numbers.

What "not known" means:
- a frame whose key quality is NaN has no truth (no label): it counts nowhere;
- a key whose row is NaN beyond d = 0 has not been tabulated (thinned): no schedule may use it.

The engine's rules hold: frame 0 is key, and so is a frame `max_interval` after the last key (default: the
horizon). On a thinned table a key is forced as late as the tabulated keys allow.

Legend: T frames, L horizon, P thresholds, m keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidseg_core.config.catalogue import FIXED, INTERVAL, SCHEDULERS
from vidseg_core.config.errors import nearest
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.random_keys import RandomKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A schedule's way through one segment, one-sided."""

    keys_m: np.ndarray
    """int64, increasing; the first is 0."""
    quality_T: np.ndarray
    """float32 [T]: each frame's quality; NaN for frames without truth."""

    @property
    def frames(self) -> int:
        return len(self.quality_T)

    @property
    def aki(self) -> float:
        """Average key interval: frames over keys (DVRL section 4.1)."""
        return self.frames / len(self.keys_m)

    @property
    def total(self) -> float:
        """Sum over the frames that count."""
        return float(np.nansum(self.quality_T, dtype=np.float64))

    @property
    def mean(self) -> float:
        """Mean over the frames that count; NaN if none does."""
        counted = int((~np.isnan(self.quality_T)).sum())
        return self.total / counted if counted else float("nan")


def counts_T(table: EpisodeTable) -> np.ndarray:
    """bool [T]: the frame has a truth, so that its quality counts."""
    return np.isfinite(table.key_quality_T)


def known_keys_T(table: EpisodeTable) -> np.ndarray:
    """bool [T]: the frame's row has been tabulated, so that a schedule may have a key there."""
    after = _truth_after(table)
    lacking = (after & np.isnan(table.quality_TL1))[:, 1:].any(axis=1)
    return np.logical_not(lacking)


def walk(table: EpisodeTable, keys: Sequence[int] | np.ndarray) -> Walk:
    """The qualities of all frames under these keys; `EpisodeError` for keys that the table cannot value."""
    keys_m = checked_keys(table, keys)
    ordinal_T = np.arange(table.frames)
    key_T = keys_m[np.searchsorted(keys_m, ordinal_T, side="right") - 1]
    return Walk(keys_m=keys_m, quality_T=table.quality_TL1[key_T, ordinal_T - key_T])


def two_sided_total(table: EpisodeTable, keys: Sequence[int] | np.ndarray) -> float:
    """Sum of the qualities of all frames that count, two-sided between keys, one-sided after the last."""
    keys_m = checked_keys(table, keys)
    two_TL1 = two_sided_of(table)
    between = two_TL1[keys_m[:-1], np.diff(keys_m)]
    if np.isnan(between).any():
        bad = int(np.flatnonzero(np.isnan(between))[0])
        raise EpisodeError(
            f"{_name(table)}: the interval from key {keys_m[bad]} to key {keys_m[bad + 1]} "
            "is not in the two-sided table"
        )
    last = keys_m[-1]
    tail = table.quality_TL1[last, : table.frames - last]
    at_keys = table.key_quality_T[keys_m[:-1]]
    return float(sum(np.nansum(part, dtype=np.float64) for part in (at_keys, between, tail)))


def two_sided_of(table: EpisodeTable) -> np.ndarray:
    """The two-sided table; `EpisodeError` if there is none."""
    if table.two_sided_TL1 is None:
        raise EpisodeError(f"{_name(table)}: no two-sided table; build one with --two_sided_stride")
    return table.two_sided_TL1


def checked_keys(table: EpisodeTable, keys: Sequence[int] | np.ndarray) -> np.ndarray:
    """The keys as an int64 array; `EpisodeError` unless they are a schedule that the table knows."""
    keys_m = np.asarray(keys, dtype=np.int64)
    if keys_m.ndim != 1 or not len(keys_m) or keys_m[0] != 0 or (np.diff(keys_m) < 1).any():
        raise EpisodeError(f"{_name(table)}: keys must increase from 0, not {keys_m.tolist()[:5]}...")
    if keys_m[-1] >= table.frames:
        raise EpisodeError(f"{_name(table)}: key {keys_m[-1]} of {table.frames} frames")
    intervals_m = np.diff(np.append(keys_m, table.frames))
    if (intervals_m > table.horizon).any():
        far = int(np.argmax(intervals_m))
        raise EpisodeError(
            f"{_name(table)}: the interval of key {keys_m[far]} has {intervals_m[far]} frames, "
            f"the table knows up to {table.horizon} (its horizon)"
        )
    unknown = keys_m[~known_keys_T(table)[keys_m]]
    if len(unknown):
        raise EpisodeError(f"{_name(table)}: key {unknown[0]} is not in the table (thinned)")
    return keys_m


def fixed_keys(frames: int, interval: int) -> np.ndarray:
    """A key every `interval` frames, as the scheduler `fixed` has them."""
    return np.arange(0, frames, interval, dtype=np.int64)


def even_keys(frames: int, keys: int) -> np.ndarray:
    """`keys` keys, as evenly as whole frames allow."""
    return (np.arange(keys, dtype=np.int64) * frames) // keys


# --- schedulers that score ---------------------------------------------------------------------------------

Score = Callable[[EpisodeTable, int], np.ndarray]
"""(table, seed) -> score_TL1: how much a key is wanted at frame k + d while k is the last key."""


def feature(table: EpisodeTable, name: str) -> np.ndarray:
    """float32 [T, L + 1]: one deviation feature; unknown names suggest the nearest."""
    if name not in table.feature_names:
        hint = nearest(name, table.feature_names)
        raise EpisodeError(f"{_name(table)}: no feature {name!r}{hint}; see build-episodes --features")
    return table.deviation_TL1F[..., table.feature_names.index(name)]


def with_features(table: EpisodeTable, names: Sequence[str]) -> EpisodeTable:
    """The table with these deviation features only, in this order."""
    columns = [feature(table, name) for name in names]
    return replace(table, deviation_TL1F=np.stack(columns, axis=-1), feature_names=tuple(names))


def random_score(table: EpisodeTable, seed: int) -> np.ndarray:
    """The scheduler `random`: one uniform number a frame, whatever the key; those of the engine."""
    score_T = np.full(table.frames + table.horizon, np.nan)
    for ordinal in range(table.frames):
        score_T[ordinal] = RandomKeys(INTERVAL).score(_unseen(seed, f"{table.clip}/{table.segment}", ordinal))
    return np.lib.stride_tricks.sliding_window_view(score_T, table.horizon + 1)


def _unseen(seed: int, segment: str, ordinal: int) -> Deviation:
    """A frame of which nothing is known but its number."""

    def nothing() -> np.ndarray:
        raise RuntimeError("there are no pictures on a table")

    return Deviation(
        current=nothing,
        key=nothing,
        flow=nothing,
        ordinal=ordinal,
        frame_index=ordinal,
        lkd=1,
        kar=0.0,
        is_corrupt=False,
        seed=seed,
        segment=segment,
    )


def distance_score(table: EpisodeTable, seed: int) -> np.ndarray:
    """The scheduler `fixed`: frames since the last key."""
    return np.broadcast_to(np.arange(table.horizon + 1.0), table.quality_TL1.shape)


def _feature_score(name: str) -> Score:
    return lambda table, seed: feature(table, name)


SCORES: Mapping[str, Score] = {
    FIXED: distance_score,
    "random": random_score,
    **{
        name: _feature_score(entry.feature)
        for name, entry in SCHEDULERS.items()
        if entry.scores and entry.feature
    },
}
"""The online schedulers of the engine, on tables."""


def run_scores(
    table: EpisodeTable, score_TL1: np.ndarray, thresholds_P: np.ndarray, *, max_interval: int | None = None
) -> np.ndarray:
    """bool [P, T]: the keys of a scheduler that takes a frame whose score exceeds its threshold."""
    limit = _max_interval(table, max_interval)
    may_T = known_keys_T(table)
    thresholds_P = np.asarray(thresholds_P, dtype=np.float64)
    next_T = _next_known(may_T)
    last_P = np.zeros(len(thresholds_P), dtype=np.int64)
    is_key_PT = np.zeros((len(thresholds_P), table.frames), dtype=bool)
    is_key_PT[:, 0] = True
    for frame in range(1, table.frames):
        if not may_T[frame]:
            continue
        lkd_P = frame - last_P
        if (lkd_P > limit).any():
            raise EpisodeError(f"{_name(table)}: no tabulated key within {limit} frames before {frame}")
        forced_P = next_T[frame] - last_P > limit
        key_P = forced_P | (score_TL1[last_P, lkd_P] > thresholds_P)
        is_key_PT[:, frame] = key_P
        last_P = np.where(key_P, frame, last_P)
    return is_key_PT


def fit_threshold(
    tables: Sequence[EpisodeTable],
    scores: Sequence[np.ndarray],
    most_keys: int,
    *,
    candidates: int = 128,
    max_interval: int | None = None,
) -> tuple[float, list[np.ndarray]]:
    """One threshold for all tables with as many keys as fit into `most_keys` together, and their keys.

    Candidates are quantiles of all scores, refined once around the best; `EpisodeError` if `max_interval`
    alone forces more keys.
    """
    pool = np.unique(np.concatenate([score[:, 1:][~np.isnan(score[:, 1:])].ravel() for score in scores]))
    pool = np.append((pool[:-1] + pool[1:]) / 2, pool[-1] + 1.0).astype(np.float64)
    low, high = 0, len(pool) - 1
    while True:
        places = np.unique(np.linspace(low, high, candidates).round().astype(np.int64))
        runs = [
            run_scores(table, score, pool[places], max_interval=max_interval)
            for table, score in zip(tables, scores, strict=True)
        ]
        keys_P = np.sum([run.sum(axis=1) for run in runs], axis=0)
        fits = np.flatnonzero(keys_P <= most_keys)
        if not len(fits):
            raise EpisodeError(
                f"{most_keys} keys are too few for {sum(t.frames for t in tables)} frames: the largest "
                f"interval allowed forces {keys_P.min()}"
            )
        best = int(fits[np.argmax(keys_P[fits])])
        if keys_P[best] == most_keys or high - low < candidates:
            return float(pool[places[best]]), [np.flatnonzero(run[best]) for run in runs]
        low, high = int(places[max(best - 1, 0)]), int(places[best])


def _max_interval(table: EpisodeTable, max_interval: int | None) -> int:
    limit = table.horizon if max_interval is None else max_interval
    if not 1 <= limit <= table.horizon:
        raise EpisodeError(
            f"{_name(table)}: max_interval must be from 1 to the table's horizon {table.horizon}, not {limit}"
        )
    return limit


def _next_known(may_T: np.ndarray) -> np.ndarray:
    """int64 [T]: the next frame after each that may be key; T (the end needs no key) if there is none."""
    frames = len(may_T)
    next_T = np.full(frames + 1, frames, dtype=np.int64)
    for frame in range(frames - 2, -1, -1):
        next_T[frame] = frame + 1 if may_T[frame + 1] else next_T[frame + 1]
    return next_T[:frames]


def _truth_after(table: EpisodeTable) -> np.ndarray:
    """bool [T, L + 1]: frame k + d exists and counts."""
    padded = np.concatenate([counts_T(table), np.zeros(table.horizon, dtype=bool)])
    return np.lib.stride_tricks.sliding_window_view(padded, table.horizon + 1)


def _name(table: EpisodeTable) -> str:
    return f"clip {table.clip}, segment {table.segment}"
