"""What lies between two keys of a segment that N has seen whole: what its frames are worth together.

Invariant: the frames are put together as a gap is filled (`propagation.filler`). Of a propagator that knows
one key at a time, the sides of a key are made once for all intervals that it begins or ends; whoever fills
gaps fills each anew.

Legend: T frames, L horizon (1 = + 1); keys k < n.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from vidseg_core.episodes.quality import Truth
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.filler import Filler
from vidseg_core.propagation.gap import Gap, GapFrame, GapKey
from vidseg_core.propagation.two_sided import Side, put_together


@dataclass(slots=True)
class Seen:
    """A segment's frames as the pairs need them."""

    keys: list[GapKey] = field(default_factory=list)
    """Each frame as a key: what N gave (label maps with `void` where labels stand in for N), and what of the
    frame the propagator reads."""
    own: list[Any] = field(default_factory=list)
    """What the propagator's own net says of each frame."""
    masks: list[np.ndarray] = field(default_factory=list)
    truths: list[Truth] = field(default_factory=list)


class Filling(Protocol):
    """What a `TableBuilder` offers here."""

    filler: Filler

    def links(self, seen: Seen, k: int, *, forward: bool, reach: int | None = None) -> list[Link]: ...
    def sides(self, seen: Seen, k: int, reach: int, *, forward: bool) -> list[Side]: ...
    def labels_of(self, carried: Any) -> np.ndarray: ...


def gap_of(
    seen: Seen, k: int, links: Sequence[Link], n: int | None = None, rights: Sequence[Link] = ()
) -> Gap:
    """The frames after key k, up to key n if there is one; `rights`: n's links, of the frames 1, 2, ...
    before it."""
    frames = [
        GapFrame(
            left=link,
            right=rights[n - k - link.distance - 1] if n is not None else None,
            rgb_HW3=seen.keys[k + link.distance].rgb_HW3,
            low_maps=seen.keys[k + link.distance].low_maps,
        )
        for link in links
    ]
    return Gap(left=seen.keys[k], frames=frames, right=None if n is None else seen.keys[n])


class Between:
    """What the frames strictly between two keys are worth; keys are asked for from the first to the last."""

    def __init__(self, filling: Filling, seen: Seen) -> None:
        self._filling, self._seen = filling, seen
        self._before: dict[int, list[Any]] = {}
        """Key -> its sides (or links) of the frames 1, 2, ... before it, as far as they may still be asked
        for."""

    def values(self, k: int, ends: Sequence[int], left: Sequence[Any] | None = None) -> list[float]:
        """For each key of `ends`, increasing, the sum of the qualities between key k and it, frames without
        truth left out. `left`: the sides (or links) of k, of the frames 1, 2, ... after it, where they are
        known."""
        for n in [n for n in self._before if n <= k]:
            del self._before[n]
        pairwise, after = self._filling.filler.pairwise, ends[-1] - k - 1
        lefts: Sequence[Any] = left or self._looks(k, after, forward=True)
        found = []
        for n in ends:
            if n not in self._before:
                self._before[n] = self._looks(n, n - k - 1, forward=False)
            del self._before[n][n - k - 1 :]
            value = self._of_sides if pairwise else self._of_gap
            found.append(value(k, n, lefts[: n - k - 1], self._before[n]))
        return found

    def masks(self, k: int, n: int) -> list[np.ndarray]:
        """labels_HW of the frames strictly between keys k and n."""
        left, right = (self._looks(key, n - k - 1, forward=key == k) for key in (k, n))
        if self._filling.filler.pairwise:
            filled: Iterable[Any] = put_together(zip(left, reversed(right), strict=True))
        else:
            filled = self._filling.filler.fill([gap_of(self._seen, k, left, n, right)])
        return [self._filling.labels_of(carried) for carried in filled]

    def _looks(self, key: int, reach: int, *, forward: bool) -> list[Any]:
        """What the key says of so many frames on one side of it; its links to them, where gaps are filled."""
        if self._filling.filler.pairwise:
            return self._filling.sides(self._seen, key, reach, forward=forward)
        return self._filling.links(self._seen, key, forward=forward, reach=reach)

    def _of_sides(self, k: int, n: int, left: Sequence[Side], right: Sequence[Side]) -> float:
        truths = self._seen.truths[k + 1 : n]
        sides = [
            (before, after)
            for truth, before, after in zip(truths, left, reversed(right), strict=True)
            if truth.counted
        ]
        return self._total([truth for truth in truths if truth.counted], put_together(sides))

    def _of_gap(self, k: int, n: int, left: Sequence[Link], right: Sequence[Link]) -> float:
        gap = gap_of(self._seen, k, left, n, right)
        return self._total(self._seen.truths[k + 1 : n], self._filling.filler.fill([gap]))

    def _total(self, truths: Sequence[Truth], filled: Iterable[Any]) -> float:
        total = 0.0
        for truth, carried in zip(truths, filled, strict=True):
            if truth.counted:
                total += truth.quality(self._filling.labels_of(carried))
        return total


class TwoSidedTable:
    """The two-sided table, filled key by key."""

    def __init__(self, filling: Filling, seen: Seen, *, stride: int, horizon: int) -> None:
        self._between, self._stride, self._horizon = Between(filling, seen), stride, horizon
        self.table_TL1 = np.full((len(seen.keys), horizon + 1), np.nan, np.float32)

    def add(self, k: int, left: Sequence[Any]) -> None:
        """All intervals that key k begins; `left`: its sides (or links) of the frames after it."""
        if k % self._stride:
            return
        self.table_TL1[k, 0] = 0.0
        last = min(k + self._horizon, len(self.table_TL1) - 1)
        ends = range(k + self._stride, last + 1, self._stride)
        values = self._between.values(k, ends, left) if ends else []
        for n, value in zip(ends, values, strict=True):
            self.table_TL1[k, n - k] = value
