"""What a run of sampled frames says: the tables of one side, and of two sides those intervals that are asked.

Model: N runs once on every frame; that is the reference (fidelity, `episodes.quality`). One-sided qualities
and the scores of all schedulers are an episode table (`episodes.table_builder`). Two-sided tables of all
intervals would cost minutes a clip, and a calibration tries some fifty schedules: only the intervals that
occur in them are put together, each once. Invariant: the numbers are those that `vidseg segment` would reach
on these frames.

Legend: T frames; h, w flow size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vidseg_core.episodes.between import Between, Seen
from vidseg_core.episodes.quality import Truth
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.table_builder import TableBuilder
from vidseg_core.episodes.walk import checked_keys, used_from, walk

Interval = tuple[int, int]
"""A key and the key after it."""
Known = dict[Interval, float]
"""Sum of the qualities of the frames strictly between two keys."""


def intervals_of(schedules: Iterable[np.ndarray]) -> set[Interval]:
    """The intervals between keys of these schedules that hold frames."""
    pairs = ((int(k), int(n)) for keys_m in schedules for k, n in zip(keys_m[:-1], keys_m[1:], strict=True))
    return {(k, n) for k, n in pairs if n > k + 1}


def two_sided_values(builder: TableBuilder, seen: Seen, wanted: Iterable[Interval]) -> Known:
    """The value of each interval."""
    after: dict[int, list[int]] = defaultdict(list)
    for k, n in wanted:
        after[k].append(n)
    known: Known = {}
    between = Between(builder, seen)
    for k in sorted(after):
        ends = sorted(after[k])
        known |= {(k, n): value for n, value in zip(ends, between.values(k, ends), strict=True)}
        seen.keys[k].kept = None
    _forget_made(seen)
    return known


def schedule_quality(
    builder: TableBuilder, seen: Seen, keys_m: np.ndarray, *, two_sided: bool, delay: int = 0
) -> float:
    """Mean quality of all frames under these keys, gap by gap, for a propagator that has no table. `delay`:
    as in `episodes.walk`."""
    masks = schedule_masks(builder, seen, keys_m, two_sided=two_sided, delay=delay)
    return sum(map(Truth.quality, seen.truths, masks)) / len(masks)


def schedule_masks(
    builder: TableBuilder, seen: Seen, keys_m: np.ndarray, *, two_sided: bool, delay: int = 0
) -> list[np.ndarray]:
    """labels_HW of all frames under these keys."""
    between, frames = Between(builder, seen), len(seen.keys)
    masks = list(seen.masks)
    starts_m = used_from(keys_m, frames, delay)
    for k, first, end in zip(keys_m, starts_m, [*starts_m[1:], frames], strict=True):
        if end - k < 2:
            continue
        if two_sided and end < frames:
            masks[k + 1 : end] = between.masks(int(k), int(end))
            continue
        links = builder.links(seen, int(k), forward=True, reach=int(end - k - 1))
        for link, carried in zip(links, builder.row(seen, int(k), links), strict=True):
            if k + link.distance >= first:
                masks[k + link.distance] = builder.labels_of(carried)
    _forget_made(seen)
    return masks


def _forget_made(seen: Seen) -> None:
    """What a propagator made of keys may be larger than the frames, and another one makes its own."""
    for key in seen.keys:
        key.kept = None


@dataclass(slots=True)
class Clip:
    """One run of the sample, as schedules are valued on it."""

    table: EpisodeTable
    two_sided: bool
    known: Known
    delay: int = 0
    """With low latency, frames after which a key's own result takes effect."""

    def missing(self, schedules: Iterable[np.ndarray]) -> list[Interval]:
        """Intervals that must be put together before these schedules can be valued."""
        return sorted(intervals_of(schedules) - self.known.keys()) if self.two_sided else []

    def quality(self, keys: np.ndarray) -> float:
        """Mean quality of all frames under these keys; frames after the last key see one side only."""
        if not self.two_sided:
            return walk(self.table, keys, delay=self.delay).mean
        keys_m = checked_keys(self.table, keys)
        table, last = self.table, int(keys_m[-1])
        total = float(table.key_quality_T[keys_m[:-1]].sum(dtype=np.float64))
        total += float(table.quality_TL1[last, : table.frames - last].sum(dtype=np.float64))
        for interval in intervals_of([keys_m]):
            if interval not in self.known:
                raise EpisodeError(f"clip {table.clip}: interval {interval} has not been put together")
            total += self.known[interval]
        return total / table.frames
