"""Temporal consistency TC (ETC Eq. 5 and 6): does a class stay with the pixel that moves?

Model: frames t - 1 and t, their masks Q, and two flows between them. The mask of one frame is read where the
flow says the pixel was in the other (nearest: class ids are names, nothing lies between two of them), and
both are compared by intersection over union. Two directions exist, and both are kept apart:

- `backward`, the paper's: Q[t-1] is warped to t along M[t -> t-1] and compared with Q[t];
- `forward`: Q[t] is warped to t - 1 along M[t-1 -> t] and compared with Q[t-1].

Pixels that only one of the two frames shows have no counterpart, and would be held against the masks. They
are found by following a pixel to the other frame and back: who does not come home is occluded (Sundaram,
Brox, Keutzer 2010, section 4), and so is who leaves the picture. ETC's soft mask exp(-|I - I'|) serves its
loss; a measure needs a yes or no.

A sequence's TC is the mean IoU over the classes, from counts summed over all its pairs; a corpus' TC is the
mean over its sequences ("on each sequence, and an average mean on the validation set").

**Pop**: TC of the pairs that a key ends (t is key) minus TC of the pairs inside a run. Below zero: masks jump
where the net takes over from propagation. Propagated masks are consistent by construction, so TC alone
flatters rare keys; read both.

Invariant: a still mask on a still picture has TC 1. Tests hold every number to a pixel-by-pixel reference.

Shape suffixes: H W rows and columns of the masks, h w of the flow; 2 = (x, y); C classes.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from vidseg_core.grid import pixel_grid
from vidseg_core.metrics.confusion import count_pairs, iou_of

RELATIVE, ABSOLUTE = 0.01, 0.5
"""A pixel comes home if |a + b|^2 < RELATIVE * (|a|^2 + |b|^2) + ABSOLUTE (pixels^2 at flow size)."""
_ONE_MAP: Any = None


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
        self._seen = (seen_hw(*self._flows), seen_hw(*self._flows[::-1]))
        self._at: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]] = {}

    def at(self, height: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(map_HW2, seen_HW uint8) for `backward` and `forward`: where to read, and which pixels count."""
        size = (height, width)
        if size not in self._at:
            self._at[size] = [
                (_grid_map(flow_hw2, height, width), _grown(mask_hw, height, width))
                for flow_hw2, mask_hw in zip(self._flows, self._seen, strict=True)
            ]
        return self._at[size]


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


class TemporalConsistency:
    """Accumulates the pairs of one sequence; ids run from 0 to `num_classes` - 1."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.pairs = 0
        self.counts_KDCC = np.zeros((2, 2, num_classes, num_classes), np.int64)
        """Pixels by [does a key end the pair, direction (backward, forward), mask, warped mask]."""

    def update(self, before_HW: np.ndarray, current_HW: np.ndarray, flow: PairFlow, *, at_key: bool) -> float:
        """Add the pair (t - 1, t) and return its own TC, backward; `at_key`: frame t is a key frame."""
        if before_HW.shape != current_HW.shape:
            raise ValueError(f"masks {before_HW.shape} and {current_HW.shape} differ in shape")
        masks = ((before_HW, current_HW), (current_HW, before_HW))
        pair_DCC = np.empty((2, self.num_classes, self.num_classes), np.int64)
        for number, ((source_HW, target_HW), (map_HW2, seen_HW)) in enumerate(
            zip(masks, flow.at(*current_HW.shape), strict=True)
        ):
            warped_HW = cv2.remap(
                source_HW, map_HW2, _ONE_MAP, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
            )
            pair_DCC[number] = count_pairs(target_HW, warped_HW, self.num_classes, where_HW=seen_HW)
        self.counts_KDCC[int(at_key)] += pair_DCC
        self.pairs += 1
        return _mean_iou(pair_DCC[0])

    @property
    def tc(self) -> float:
        """TC in the paper's direction (backward); NaN without pairs."""
        return _mean_iou(self.counts_KDCC[:, 0].sum(axis=0))

    @property
    def tc_forward(self) -> float:
        """TC in the other direction."""
        return _mean_iou(self.counts_KDCC[:, 1].sum(axis=0))

    @property
    def tc_at_keys(self) -> float:
        """TC (backward) of the pairs that a key ends; NaN if there is none."""
        return _mean_iou(self.counts_KDCC[1, 0])

    @property
    def tc_inside(self) -> float:
        """TC (backward) of all other pairs; NaN if there is none."""
        return _mean_iou(self.counts_KDCC[0, 0])

    @property
    def pop(self) -> float:
        """TC at keys minus TC inside runs: below 0 where masks jump at keys; NaN if one of them is."""
        return self.tc_at_keys - self.tc_inside


def _mean_iou(counts_CC: np.ndarray) -> float:
    iou = iou_of(counts_CC)
    present = iou[~np.isnan(iou)]
    return float(present.mean()) if present.size else float("nan")
