"""Temporal consistency TC (ETC Eq. 5 and 6): does a class stay with the pixel that moves?

Model: frames t - 1 and t, their masks Q, and two flows between them. The mask of one frame is read where the
flow says the pixel was in the other (nearest: class ids are names, nothing lies between two of them; beyond
the edge the nearest pixel of the edge is read), and both are compared by intersection over union. Two
directions exist, and both are kept apart:

- `backward`, that of Eq. 5: Q[t-1] is warped to t along M[t -> t-1] and compared with Q[t];
- `forward`: Q[t] is warped to t - 1 along M[t-1 -> t] and compared with Q[t-1].

Eq. 5 counts every pixel. Pixels that only one of the two frames shows have no counterpart, though, and are
held against the masks there. So there is a second number over the **visible** ones: a pixel is followed to
the other frame and back, and who does not come home is occluded (Sundaram, Brox, Keutzer 2010, section 4); so
is who leaves the picture. ETC's soft mask exp(-|I - I'|) serves its loss, Eq. 3; its measure has none.

A sequence's TC is the mean IoU over the classes, from counts summed over all its pairs; a corpus' TC is the
mean over its sequences (Eq. 6). The numbers that ETC prints were taken in another way, by its authors' script
and by Table VI, whose mean over classes is Table I's TC: counts summed over all pairs of all sequences, then
the mean over classes. That is the **pooled** TC. The mean over sequences is restless: a class that is not
there, seen in a few pixels that flicker, takes a whole class's share of that sequence's mean.

Pixels that are void in one of the two masks are known to nobody: they count nowhere. The **warping accuracy**
of a pair is the share of pixels that keep their class (ETC Fig. 5).

**Pop**: TC of the pairs that a key ends (t is key) minus TC of the pairs inside a run. Below zero: masks jump
where the net takes over from propagation. Propagated masks are consistent by construction, so TC alone
flatters rare keys; read both.

Invariant: a still mask on a still picture has TC 1. Tests hold every number to a pixel-by-pixel reference.

Shape suffixes: H W rows and columns of the masks, h w of the flow; 2 = (x, y); C classes; K = 2: does a key
end the pair; D = 2: direction (backward, forward).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np

from vidseg_core.grid import pixel_grid
from vidseg_core.metrics.confusion import count_pairs, iou_of

RELATIVE, ABSOLUTE = 0.01, 0.5
"""A pixel comes home if |a + b|^2 < RELATIVE * (|a|^2 + |b|^2) + ABSOLUTE (pixels^2 at flow size)."""
NAN = float("nan")
_ONE_MAP: Any = None

Occlusion = Literal["no", "yes", "both"]
"""Which pixels count: all of them (Eq. 5), the visible ones, or both, each on its own."""


class PairFlow:
    """The two flows between neighbouring frames, and who can be seen in both; brought to any mask size.

    `backward_hw2[y, x]`: where the pixel (x, y) of frame t lies in t - 1, relative, in pixels at flow size;
    `forward_hw2` the other way round.
    """

    def __init__(self, backward_hw2: np.ndarray, forward_hw2: np.ndarray) -> None:
        if backward_hw2.shape != forward_hw2.shape or backward_hw2.shape[2:] != (2,):
            raise ValueError(
                f"flows must be two [h, w, 2] of one size, not {backward_hw2.shape}, {forward_hw2.shape}"
            )
        self._flows = (backward_hw2.astype(np.float32), forward_hw2.astype(np.float32))
        self._maps: dict[tuple[int, int], tuple[np.ndarray, ...]] = {}
        self._grown: dict[tuple[int, int], tuple[np.ndarray, ...]] = {}

    def maps(self, height: int, width: int) -> tuple[np.ndarray, ...]:
        """map_HW2 of `backward` and `forward`: where to read."""
        size = (height, width)
        if size not in self._maps:
            self._maps[size] = tuple(_grid_map(flow_hw2, height, width) for flow_hw2 in self._flows)
        return self._maps[size]

    def seen(self, height: int, width: int) -> tuple[np.ndarray, ...]:
        """seen_HW uint8 of `backward` and `forward`: which pixels both frames show."""
        size = (height, width)
        if size not in self._grown:
            self._grown[size] = tuple(_grown(mask_hw, height, width) for mask_hw in self._seen)
        return self._grown[size]

    @cached_property
    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        return seen_hw(*self._flows), seen_hw(*self._flows[::-1])


def seen_hw(there_hw2: np.ndarray, back_hw2: np.ndarray) -> np.ndarray:
    """uint8 (1 or 0): pixels that the first flow leads into the other picture, and the second back home."""
    height, width = there_hw2.shape[:2]
    map_hw2 = _grid_map(there_hw2, height, width)
    x_hw, y_hw = map_hw2[..., 0], map_hw2[..., 1]
    inside_hw = (x_hw >= 0) & (x_hw <= width - 1) & (y_hw >= 0) & (y_hw <= height - 1)
    returned_hw2 = cv2.remap(back_hw2, map_hw2, _ONE_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    missed_hw = _squared(cv2.add(there_hw2, returned_hw2))
    length_hw = cv2.add(_squared(there_hw2), _squared(returned_hw2))
    return (inside_hw & (missed_hw < RELATIVE * length_hw + ABSOLUTE)).astype(np.uint8)


def _squared(flow_hw2: np.ndarray) -> np.ndarray:
    """Squared length of each vector."""
    return cv2.transform(cv2.multiply(flow_hw2, flow_hw2), np.ones((1, 2), np.float32))


def _grid_map(flow_hw2: np.ndarray, height: int, width: int) -> np.ndarray:
    """map_HW2 float32: absolute coordinates at mask size that the flow points to."""
    rows, columns = flow_hw2.shape[:2]
    if (rows, columns) != (height, width):
        scaled_hw2 = flow_hw2 * np.array([width / columns, height / rows], np.float32)
        flow_hw2 = cv2.resize(scaled_hw2, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.add(flow_hw2, pixel_grid(height, width))


def _grown(mask_hw: np.ndarray, height: int, width: int) -> np.ndarray:
    if mask_hw.shape == (height, width):
        return mask_hw
    return cv2.resize(mask_hw, (width, height), interpolation=cv2.INTER_NEAREST)


def pooled_tc(overlaps: Sequence[np.ndarray]) -> np.ndarray:
    """float64 (C,): TC of each class over all sequences at once, from their `class_overlap`; NaN for a class
    that nobody saw."""
    both_C, either_C = np.sum(overlaps, axis=0).T
    return np.divide(both_C, either_C, out=np.full(len(both_C), NAN), where=either_C > 0)


class PairCounts:
    """The pairs of one sequence over one choice of pixels; every number is NaN where nothing counted."""

    def __init__(self, num_classes: int) -> None:
        self.counts_KDCC = np.zeros((2, 2, num_classes, num_classes), np.int64)
        """Pixels by [does a key end the pair, direction, mask, warped mask]."""

    @property
    def tc(self) -> float:
        """TC in the direction of Eq. 5 (backward)."""
        return _mean_iou(self._backward_CC)

    @property
    def tc_forward(self) -> float:
        """TC in the other direction."""
        return _mean_iou(self.counts_KDCC[:, 1].sum(axis=0))

    @property
    def tc_at_keys(self) -> float:
        """TC (backward) of the pairs that a key ends."""
        return _mean_iou(self.counts_KDCC[1, 0])

    @property
    def tc_inside(self) -> float:
        """TC (backward) of all other pairs."""
        return _mean_iou(self.counts_KDCC[0, 0])

    @property
    def pop(self) -> float:
        """TC at keys minus TC inside runs: below 0 where masks jump at keys; NaN if one of them is."""
        return self.tc_at_keys - self.tc_inside

    @property
    def class_tc(self) -> np.ndarray:
        """float64 (C,): the IoU of each class (backward), whose mean is `tc` (ETC Table VI)."""
        return iou_of(self._backward_CC)

    @property
    def class_overlap(self) -> np.ndarray:
        """int64 (C, 2): pixels of each class in both of the masks of a pair, and in one of them at least
        (backward); to be summed over sequences."""
        both_C = np.diag(self._backward_CC)
        return np.stack([both_C, self._backward_CC.sum(0) + self._backward_CC.sum(1) - both_C], axis=1)

    @property
    def accuracy(self) -> float:
        """Warping accuracy (backward): the share of pixels that keep their class."""
        return _accuracy(self._backward_CC)

    @property
    def _backward_CC(self) -> np.ndarray:
        return self.counts_KDCC[:, 0].sum(axis=0)


@dataclass(frozen=True, slots=True)
class PairScore:
    """One pair, backward; NaN for what was not asked for."""

    tc: float
    tc_visible: float
    accuracy: float


class TemporalConsistency(PairCounts):
    """Accumulates the pairs of one sequence; ids run from 0 to `num_classes` - 1.

    It counts every pixel, as Eq. 5 does, and `visible` counts those that both frames show. `occlusion` says
    which of the two are wanted; `void` is the id of pixels whose class nobody knows.
    """

    def __init__(self, num_classes: int, *, occlusion: Occlusion = "both", void: int | None = None) -> None:
        super().__init__(num_classes)
        self.num_classes, self.void = num_classes, void
        self.visible = PairCounts(num_classes)
        self.pairs = 0
        self._all, self._visible = occlusion != "yes", occlusion != "no"

    def update(
        self, before_HW: np.ndarray, current_HW: np.ndarray, flow: PairFlow, *, at_key: bool
    ) -> PairScore:
        """Add the pair (t - 1, t) and return its own numbers; `at_key`: frame t is a key frame."""
        if before_HW.shape != current_HW.shape:
            raise ValueError(f"masks {before_HW.shape} and {current_HW.shape} differ in shape")
        size, masks = current_HW.shape, ((before_HW, current_HW), (current_HW, before_HW))
        pairs = [
            (target_HW, _warped(source_HW, map_HW2))
            for (source_HW, target_HW), map_HW2 in zip(masks, flow.maps(*size), strict=True)
        ]
        every_DCC, visible_DCC = np.zeros((2, 2, self.num_classes, self.num_classes), np.int64)
        if self._all:
            every_DCC = self._count(pairs, (None, None))
        if self._visible:
            visible_DCC = self._count(pairs, flow.seen(*size))
        self.counts_KDCC[int(at_key)] += every_DCC
        self.visible.counts_KDCC[int(at_key)] += visible_DCC
        self.pairs += 1
        return PairScore(
            tc=_mean_iou(every_DCC[0]),
            tc_visible=_mean_iou(visible_DCC[0]),
            accuracy=_accuracy(every_DCC[0]),
        )

    def _count(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], where: Sequence[np.ndarray | None]
    ) -> np.ndarray:
        """int64 [direction, mask, warped mask]: pixels, without those that are void on either side."""
        counted_DCC = np.stack(
            [
                count_pairs(target_HW, warped_HW, self.num_classes, where_HW=where_HW)
                for (target_HW, warped_HW), where_HW in zip(pairs, where, strict=True)
            ]
        )
        if self.void is not None:
            counted_DCC[:, self.void, :] = counted_DCC[:, :, self.void] = 0
        return counted_DCC


def _warped(mask_HW: np.ndarray, map_HW2: np.ndarray) -> np.ndarray:
    return cv2.remap(mask_HW, map_HW2, _ONE_MAP, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


def _mean_iou(counts_CC: np.ndarray) -> float:
    iou = iou_of(counts_CC)
    present = iou[~np.isnan(iou)]
    return float(present.mean()) if present.size else NAN


def _accuracy(counts_CC: np.ndarray) -> float:
    pixels = counts_CC.sum()
    return float(np.trace(counts_CC) / pixels) if pixels else NAN
