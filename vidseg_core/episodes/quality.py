"""What a mask is worth: one number per frame, against labels or against N's own mask.

Model, frame by frame (DVRL section 3.2):
- `labels` (Eq. 1): mean IoU over the classes that the frame's labels or the mask hold; pixels without a
  label count nowhere, and a frame without any labelled pixel has no quality (NaN);
- `fidelity` (Eq. 2's substitution, in the unit of Eq. 1): the same mean IoU, with N's own mask of the frame
  as its labels;
- `accuracy` (Eq. 2 as it is written, and the confidence of DVSNet Eq. 1): share of the pixels on which mask
  and N's own mask agree.

Where labels stand in for N they are its mask: `accuracy` is then the share of the labelled pixels that agree
with them, and a pixel without a label is carried along as one class more, `void`. A mask that says `void`
where a label is known is wrong there, but `void` is no class in the mean.

Legend: C classes, K = C + 1 with `void` last, H, W working size.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import cv2
import numpy as np

from vidseg_core.episodes.table import EpisodeError
from vidseg_core.metrics.confusion import IGNORE_INDEX, ConfusionMatrix

Quality: TypeAlias = Literal["labels", "fidelity", "accuracy"]
_BYTE_CODES = 256


class Truth:
    """One frame's reference, ready to be compared with many masks.

    A mask's pair counts are a histogram of `truth * K + mask`, which is one pass over bytes.
    """

    __slots__ = ("_codes_HW", "_quality", "classes", "counted", "seen")

    def __init__(self, labels_HW: np.ndarray | None, classes: int, quality: Quality) -> None:
        """`labels_HW`: ids below `classes`, or 255; None: the frame has no labels."""
        self.classes, self._quality = classes, quality
        self.counted, self.seen = False, frozenset[int]()
        self._codes_HW: np.ndarray | None = None
        if labels_HW is None:
            return
        side = classes + 1
        ids_HW = np.where(labels_HW == IGNORE_INDEX, classes, labels_HW)
        present = np.flatnonzero(np.bincount(ids_HW.ravel(), minlength=side))
        if present[-1] > classes:
            raise EpisodeError(f"a label says class {present[-1]}, there are {classes} classes")
        self.seen = frozenset(int(label) for label in present if label < classes)
        self.counted = bool(self.seen)
        if self.counted:
            small = side * side <= _BYTE_CODES
            self._codes_HW = (ids_HW.astype(np.uint32) * side).astype(np.uint8 if small else np.uint16)

    def quality(self, mask_HW: np.ndarray) -> float:
        """Quality of a mask with ids up to `classes` (`void`); NaN if the frame has no labelled pixel."""
        if self._codes_HW is None:
            return float("nan")
        matrix = ConfusionMatrix(self.classes + 1)
        matrix.counts_CC += self._counts(mask_HW)
        if self._quality == "accuracy":
            return matrix.pixel_accuracy()
        iou = matrix.iou()[: self.classes]
        return float(iou[~np.isnan(iou)].mean())

    def _counts(self, mask_HW: np.ndarray) -> np.ndarray:
        """int64 [K, K]: pixels by truth and mask; the row of pixels without a label is 0."""
        side = self.classes + 1
        assert self._codes_HW is not None
        depth = cv2.CV_8U if self._codes_HW.dtype == np.uint8 else cv2.CV_16U
        codes_HW = cv2.add(self._codes_HW, mask_HW, dtype=depth)
        counts = cv2.calcHist([codes_HW], [0], None, [side * side], [0, side * side])
        counts_KK = counts.astype(np.int64).reshape(side, side)
        counts_KK[self.classes] = 0
        return counts_KK


def as_mask(labels_HW: np.ndarray, classes: int) -> np.ndarray:
    """uint8: labels in the place of N's mask; pixels without a label become the class `void` after the
    others."""
    return np.where(labels_HW == IGNORE_INDEX, classes, labels_HW).astype(np.uint8)
