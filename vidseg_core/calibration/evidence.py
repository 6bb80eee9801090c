"""What a run of sampled frames says: the tables of one side, and of two sides those intervals that are asked.

Model: N runs once on every frame; that is the reference (fidelity, `episodes.quality`). One-sided qualities
and the scores of all schedulers are an episode table (`episodes.build`). Two-sided tables of all intervals
would cost minutes a clip, and a calibration tries some fifty schedules: only the intervals that occur in
them are put together, each once. Invariant: the numbers are those that `vidseg segment` would reach on
these frames.

Legend: T frames; h, w flow size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidseg_core.episodes.build import Seen, TableBuilder
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.walk import checked_keys, walk
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.two_sided import choose, prefer_right
from vidseg_core.propagation.warp import warp_error

Interval = tuple[int, int]
"""A key and the key after it."""
Known = dict[Interval, float]
"""Sum of the qualities of the frames strictly between two keys."""


def intervals_of(schedules: Iterable[np.ndarray]) -> set[Interval]:
    """The intervals between keys of these schedules that hold frames."""
    pairs = ((int(k), int(n)) for keys_m in schedules for k, n in zip(keys_m[:-1], keys_m[1:], strict=True))
    return {(k, n) for k, n in pairs if n > k + 1}


def two_sided_values(builder: TableBuilder, seen: Seen, wanted: Iterable[Interval]) -> Known:
    """The value of each interval, as `engine.finalise` puts its frames together."""
    after: dict[int, list[int]] = defaultdict(list)
    for k, n in wanted:
        after[k].append(n)
    known: Known = {}
    ahead: dict[int, list[_Side]] = {}
    for k in sorted(after):
        for passed in [n for n in ahead if n <= k]:
            del ahead[passed]
        left = _sides(builder, seen, k, max(after[k]) - k - 1, forward=True)
        for n in sorted(after[k]):
            if len(ahead.get(n, ())) < n - k - 1:
                ahead[n] = _sides(builder, seen, n, n - k - 1, forward=False)
            known[k, n] = _between(builder, seen, k, n, left, ahead[n])
    return known


@dataclass(slots=True)
class _Side:
    """What one key says of one frame."""

    carried: Any
    error_hw: np.ndarray


def _sides(builder: TableBuilder, seen: Seen, key: int, reach: int, *, forward: bool) -> list[_Side]:
    propagator = builder.propagator
    sides = []
    for link in builder.links(seen, key, forward=forward, reach=reach):
        flow_hw2 = link.flow_hw2 if propagator.needs_flow else None
        carried = propagator.carry(seen.carried[key], flow_hw2)
        sides.append(_Side(carried, _error(link, flow_hw2)))
    return sides


def _error(link: Link, flow_hw2: np.ndarray | None) -> np.ndarray:
    return warp_error(link.current, link.key, flow_hw2)


def _between(
    builder: TableBuilder, seen: Seen, k: int, n: int, left: Sequence[_Side], right: Sequence[_Side]
) -> float:
    total = 0.0
    for frame in range(k + 1, n):
        a, b = left[frame - k - 1], right[n - frame - 1]
        advantage_hw = prefer_right(a.error_hw, b.error_hw, right_is_nearer=n - frame < frame - k)
        labels_HW = builder.labels_of(choose(a.carried, b.carried, advantage_hw))
        total += seen.truths[frame].quality(labels_HW)
    return total


@dataclass(slots=True)
class Clip:
    """One run of the sample, as schedules are valued on it."""

    table: EpisodeTable
    two_sided: bool
    known: Known

    def missing(self, schedules: Iterable[np.ndarray]) -> list[Interval]:
        """Intervals that must be put together before these schedules can be valued."""
        return sorted(intervals_of(schedules) - self.known.keys()) if self.two_sided else []

    def quality(self, keys: np.ndarray) -> float:
        """Mean quality of all frames under these keys; frames after the last key see one side only."""
        if not self.two_sided:
            return walk(self.table, keys).mean
        keys_m = checked_keys(self.table, keys)
        table, last = self.table, int(keys_m[-1])
        total = float(table.key_quality_T[keys_m[:-1]].sum(dtype=np.float64))
        total += float(table.quality_TL1[last, : table.frames - last].sum(dtype=np.float64))
        for interval in intervals_of([keys_m]):
            if interval not in self.known:
                raise EpisodeError(f"clip {table.clip}: interval {interval} has not been put together")
            total += self.known[interval]
        return total / table.frames
