"""`split`: for a job that may look ahead: a gap is halved where its two keys disagree about it.

A wrong mask between two keys is wrong by one of them, mostly: what the key before a frame says of it and what
the key after it says differ where either is wrong. So the masks of two keys tell what filling the gap between
them will lose, and nothing has to be learned. A key is taken as far ahead as one must be; a gap whose sides
disagree by more than the price of a key is halved, and so are its halves, by N's masks of the keys that were
taken. One price for a whole corpus puts its keys where they gain most, and with regions on those parts of the
frame that need them.

Up to the end of a segment no key must be. There is one, at three quarters of the way, where the last key by
itself may lose more than the price of another: what it says moves, or its picture does not explain the
frames. Of what is left after that key the same is asked again.

Both keys can be wrong alike: what passes through a region between them is in neither. Where no key's picture,
moved along the flow, explains the frame's, pixels count as if they disagreed. Far from keys that is seldom
sure, so some of the keys should be where they are anyway (`furthest_for`).

How much two masks disagree is what it could cost of the mean IoU, to first order: a pixel of class a in place
of b counts 1 / area(a) + 1 / area(b), over the number of classes (as `episodes.quality.ClassPixels`, whose
areas are the true ones). Areas are shares of the whole frame, from the segment's first undamaged key.

Legend: T frames of the window, D frames of a gap; h, w at most `LOOKAHEAD_SIZE`; K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidseg_core.metrics.confusion import IGNORE_INDEX
from vidseg_core.propagation.chain import Link, Pair, complete
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.warp import error_sums, warp_error, warp_labels
from vidseg_core.scheduling.lookahead_window import LookaheadWindow, Plan, class_shares
from vidseg_core.scheduling.protocol import checked_threshold

STRIDE = 3
"""Keys are taken among every so many frames."""
LEAST_AREA = 0.01
"""Of the frame: a smaller class, or one that the first key does not have, counts as one of this size."""
UNSEEN, WINDOW = 35, 5
"""Gray levels: mean error in a square of so many pixels a side, from which a picture is not explained."""
ANCHORS = 0.4
"""Of the keys that should be as far ahead as they must."""
AT_END = 0.75
"""Of the frames up to the end of a segment: where the first key among them is. The frames before it have two
sides, those after it one."""


class Split:
    """`threshold`: the price of a key, mIoU times frames."""

    asks = True
    window, stride = 1, STRIDE

    def __init__(self, threshold: float = 1.0) -> None:
        self.threshold = checked_threshold(threshold)

    def plan(self, window: LookaheadWindow, gaps: Gaps | None = None) -> Plan:
        """`gaps`: of this window, where it has been planned before at another price."""
        last = _furthest(window, self.stride)
        gaps = gaps or Gaps(window)
        if last is None or (window.ends and gaps.alone() <= self.threshold):
            return []
        gaps.masks[last] = (yield [last])[0]
        keys, open_gaps = [last], [(0, last)]
        while open_gaps:
            found = {gap: gaps.halved(*gap, self.stride, self.threshold) for gap in open_gaps}
            halves = {gap: middle for gap, middle in found.items() if middle is not None}
            if not halves:
                break
            asked = list(halves.values())
            gaps.masks |= dict(zip(asked, (yield asked), strict=True))
            keys += asked
            open_gaps = [half for (k, n), middle in halves.items() for half in ((k, middle), (middle, n))]
        return sorted(keys)


def furthest_for(share: float) -> int:
    """The `max_interval` that goes with this share of keys: two fifths of them are where they must be."""
    return max(STRIDE, round(1 / (ANCHORS * share)))


def _furthest(window: LookaheadWindow, stride: int) -> int | None:
    """The last undamaged place at which a key may be, or should be up to the end of the segment; None: there
    is none."""
    most = min(window.frames - 1, window.max_interval)
    if window.ends:
        most = min(most, round(AT_END * (window.frames - 1)))
    places = np.arange(stride, most + 1, stride)
    sound = places[window.sound_T[places]]
    return int(sound[-1]) if len(sound) else None


class Gaps:
    """What the keys of a window say of the frames between them."""

    def __init__(self, window: LookaheadWindow) -> None:
        self._window, self._flow = window, DisFlow()
        shares_K = window.class_shares_K
        shares_K = class_shares(window.labels_hw) if shares_K is None else shares_K
        self._weights_K = _weights(shares_K)
        there_K = self._weights_K[:IGNORE_INDEX][shares_K[:IGNORE_INDEX] > 0]
        self._mean_weight = float(there_K.mean()) if len(there_K) else 0.0
        self.masks = {0: window.labels_hw}
        self._said: dict[tuple[int, int], list[_Side]] = {}
        self._differ: dict[tuple[int, int], np.ndarray] = {}
        self._alone: float | None = None

    def halved(self, key: int, after: int, stride: int, price: float) -> int | None:
        """Where between two keys another one should be: half of the disagreement before it, half after, but
        not far from the middle. None: it is not worth its price, or there is no place for it."""
        places = np.arange(key + stride, after, stride)
        places = places[self._window.sound_T[places]]
        if not len(places):
            return None
        differ_D = self.differ(key, after)
        if differ_D.sum() <= price:
            return None
        half = key + 1 + int(np.searchsorted(np.cumsum(differ_D), differ_D.sum() / 2))
        return int(places[np.argmin(np.abs(places - (half + (key + after) / 2) / 2))])

    def differ(self, key: int, after: int) -> np.ndarray:
        """float64 [D]: by how much the sides disagree about each frame between two keys, mean IoU."""
        if (key, after) not in self._differ:
            between = after - key - 1
            left, right = self._side(key, 1, between), self._side(after, -1, between)[::-1]
            costs = [self._cost(*pair) for pair in zip(left, right, strict=True)]
            self._differ[key, after] = np.array(costs)
        return self._differ[key, after]

    def alone(self) -> float:
        """What the window's frames may lose with its first key alone, mean IoU times frames: by how much that
        key's mask, moved along the flow, differs from the same mask at rest, and what is not explained."""
        if self._alone is None:
            mask_hw = self.masks[0]
            rest = _Side(mask_hw, np.ones(mask_hw.shape, bool))
            moved = self._side(0, 1, self._window.frames - 1)
            self._alone = sum(self._cost(rest, side) for side in moved)
        return self._alone

    def _side(self, key: int, step: int, frames: int) -> list[_Side]:
        """What a key says of so many frames after (1) or before (-1) it, the nearest first."""
        said = self._said.get((key, step), [])
        if len(said) < frames:
            grays = self._window.grays
            links = [
                Link(current=grays[key + step * d], key=grays[key], distance=d) for d in range(1, frames + 1)
            ]
            complete([links], self._estimate, chained=self._flow.chained)
            said = [_Side.of(self.masks[key], link) for link in links]
            self._said[key, step] = said
        return said[:frames]

    def _estimate(self, pairs: Sequence[Pair]) -> list[np.ndarray]:
        return self._flow.flow([current for current, _ in pairs], [key for _, key in pairs])

    def _cost(self, one: _Side, other: _Side) -> float:
        differs_hw = (one.labels_hw != other.labels_hw) & one.sure_hw & other.sure_hw
        counts_K = sum(np.bincount(side.labels_hw[differs_hw], minlength=256) for side in (one, other))
        unseen = int((~differs_hw & one.unseen_hw & other.unseen_hw).sum())
        costs = float((counts_K * self._weights_K).sum()) + 2 * unseen * self._mean_weight
        return costs * self._window.area / differs_hw.size


@dataclass(frozen=True, slots=True)
class _Side:
    """What one key says of one frame."""

    labels_hw: np.ndarray
    unseen_hw: np.ndarray
    """bool: its picture does not explain the frame's."""

    @property
    def sure_hw(self) -> np.ndarray:
        """bool: N was sure enough to say a class, where labels are made for training."""
        return self.labels_hw != IGNORE_INDEX

    @classmethod
    def of(cls, labels_hw: np.ndarray, link: Link) -> _Side:
        assert link.flow_hw2 is not None
        sums_hw = error_sums(warp_error(link.current, link.key, link.flow_hw2), WINDOW)
        return cls(warp_labels(labels_hw, link.flow_hw2), sums_hw > UNSEEN * WINDOW**2)


def _weights(shares_K: np.ndarray) -> np.ndarray:
    """What a frame's worth of pixels of each class costs of the mean IoU, if they are wrong."""
    return 1.0 / np.maximum(shares_K, LEAST_AREA) / max(1, int((shares_K[:IGNORE_INDEX] > 0).sum()))
