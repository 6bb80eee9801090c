"""Schedulers that score on thinned tables, where not every frame may be key; for comparisons of schedulers.

Model: a key may only be where its row is known, and one is forced as late as the known keys allow. (Whole
tables are walked by `episodes.on_tables`.)

Legend: T frames, L horizon, P thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vidseg_core.config.catalogue import FIXED, INTERVAL, SCHEDULERS
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.walk import feature, known_keys_T
from vidseg_core.scheduling import Deviation
from vidseg_core.scheduling.random_keys import RandomKeys

Score = Callable[[EpisodeTable, int], np.ndarray]
"""(table, seed) -> score_TL1: how much a key is wanted at frame k + d while k is the last key."""


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


def _name(table: EpisodeTable) -> str:
    return f"clip {table.clip}, segment {table.segment}"
