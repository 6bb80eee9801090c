"""What thresholds make of a scorer on whole clips: key interval and quality; and which one makes an interval.

Model: each clip is walked once per threshold from its first frame to its last, all at the same time, under
the engine's rules (first frame key, a key forced at `max_interval`). Intervals and qualities are those of all
clips together: one operating point for a corpus, as a batch job has it.

Legend: P thresholds, C tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vidseg_core.episodes.environment import Environment, EpisodeRules
from vidseg_core.episodes.rollout import KeyRate, Rollout, above, roll_out
from vidseg_core.episodes.table_set import TableSet

WIDE = 24
"""Thresholds that are tried at once when one is looked for."""


@dataclass(frozen=True, slots=True)
class Operated:
    """What P thresholds came to."""

    threshold_P: np.ndarray
    aki_P: np.ndarray
    """Frames / keys over all clips."""
    quality_P: np.ndarray
    """Mean over the frames whose quality is known."""


class Operator:
    """Walks a table set with whatever gives scores."""

    def __init__(
        self,
        tables: TableSet,
        *,
        max_interval: int | None = None,
        history: int = 90,
        sides: Literal["one", "two"] = "one",
    ) -> None:
        self._tables = tables
        whole = int(tables.frames_C.max())
        rules = EpisodeRules(
            frames=whole, eta=1.0, history=history, max_interval=max_interval, reward="shown", sides=sides
        )
        self._environment = Environment(tables, rules)
        self._starts_C2 = np.stack([np.arange(tables.tables), np.zeros(tables.tables, np.int64)], axis=1)
        key_quality_R = tables.quality_RL1[:, 0]
        self._start_quality = float(np.nansum(key_quality_R[tables.first_C], dtype=np.float64))
        self._known = max(1, int(np.isfinite(key_quality_R).sum()))

    @property
    def max_interval(self) -> int:
        return self._environment.max_interval

    def walk(self, key_rate: KeyRate, threshold_P: np.ndarray) -> Rollout:
        """Walkers are clips x thresholds, threshold fastest."""
        self._environment.reset(self._starts_C2, len(threshold_P))
        return roll_out(self._environment, key_rate, above(np.tile(threshold_P, self._tables.tables)))

    def operate(self, key_rate: KeyRate, threshold_P: np.ndarray) -> Operated:
        rollout = self.walk(key_rate, threshold_P)
        points = len(threshold_P)
        keys_P = 1 + rollout.keys_SN.sum(axis=0).reshape(-1, points)
        frames_P = 1 + rollout.length_N.reshape(-1, points)
        total_P = self._start_quality + rollout.returns_N.reshape(-1, points).sum(axis=0)
        return Operated(
            threshold_P=np.asarray(threshold_P, np.float64),
            aki_P=frames_P.sum(axis=0) / keys_P.sum(axis=0),
            quality_P=total_P / self._known,
        )

    def find(self, key_rate: KeyRate, targets: Sequence[float]) -> list[Operated]:
        """For each interval that is asked for, the one threshold that comes nearest to it."""
        if not targets:
            return []
        low, high = self._score_range(key_rate)
        tried = self.operate(key_rate, np.linspace(low, high, WIDE))
        for _ in range(2):
            grids = [_between(tried, target) for target in targets]
            tried = _merge(tried, self.operate(key_rate, np.unique(np.concatenate(grids))))
        return [_nearest(tried, target) for target in targets]

    def quality_at(self, key_rate: KeyRate, targets: Sequence[float]) -> list[float]:
        """Quality at these intervals, interpolated between the thresholds around each."""
        low, high = self._score_range(key_rate)
        tried = self.operate(key_rate, np.linspace(low, high, WIDE))
        grids = [_between(tried, target) for target in targets]
        tried = _merge(tried, self.operate(key_rate, np.unique(np.concatenate(grids))))
        return [interpolate(tried, target) for target in targets]

    def _score_range(self, key_rate: KeyRate) -> tuple[float, float]:
        """Scores that are met when keys are as rare and as frequent as may be."""
        seen: list[float] = []

        def listening(deviation: np.ndarray, kar: np.ndarray, lkd: np.ndarray) -> np.ndarray:
            rate_W = key_rate(deviation, kar, lkd)
            seen.extend((float(rate_W.min()), float(rate_W.max())))
            return rate_W

        self.walk(listening, np.array([-np.inf, np.inf]))
        return min(seen, default=0.0), max(seen, default=0.0)


def interpolate(tried: Operated, target: float) -> float:
    """Quality at an interval, linear in keys per frame between what was measured."""
    order = np.argsort(1.0 / tried.aki_P, kind="stable")
    return float(np.interp(1.0 / target, 1.0 / tried.aki_P[order], tried.quality_P[order]))


def _between(tried: Operated, target: float) -> np.ndarray:
    """A grid between the thresholds whose intervals lie around the target."""
    short = tried.threshold_P[tried.aki_P <= target]
    long = tried.threshold_P[tried.aki_P >= target]
    low = short.max() if len(short) else tried.threshold_P.min()
    high = long.min() if len(long) else tried.threshold_P.max()
    return np.linspace(min(low, high), max(low, high), WIDE // 3)


def _merge(first: Operated, second: Operated) -> Operated:
    pairs = zip(_columns(first), _columns(second), strict=True)
    return Operated(*(np.concatenate(pair) for pair in pairs))


def _columns(tried: Operated) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tried.threshold_P, tried.aki_P, tried.quality_P


def _nearest(tried: Operated, target: float) -> Operated:
    at = int(np.argmin(np.abs(np.log(tried.aki_P / target))))
    return Operated(*(column[at : at + 1] for column in _columns(tried)))
