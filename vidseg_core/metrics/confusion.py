"""Mean intersection over union from a confusion matrix: one pass, any number of frames, mergeable.

Model: `counts_CC[t, p]` pixels had reference t and prediction p. Everything else is arithmetic on it.
Conventions, which differ between toolkits: counts are summed over all frames before any ratio is taken;
pixels whose *reference* is the ignore index count nowhere; a class that neither side holds is *absent*, its
IoU is NaN and the mean skips it; a class that is only predicted scores 0 and does count.

Shape suffixes: H W frame rows and columns, C classes.
"""

from __future__ import annotations

from typing import Self

import cv2
import numpy as np

IGNORE_INDEX = 255
_BYTE_CODES = 256
"""Pairs of ids that a byte can tell apart."""


class ConfusionMatrix:
    """Accumulates label pairs of `num_classes` classes; ids run from 0, `ignore_index` stands apart."""

    def __init__(self, num_classes: int, *, ignore_index: int | None = IGNORE_INDEX) -> None:
        if not 1 <= num_classes <= 256:
            raise ValueError(f"num_classes must be in 1..256, not {num_classes}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts_CC = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, prediction_HW: np.ndarray, reference_HW: np.ndarray) -> Self:
        """Add one pair of integer label maps (any equal shape). ValueError for other shapes or unknown
        ids."""
        if prediction_HW.shape != reference_HW.shape:
            raise ValueError(
                f"prediction {prediction_HW.shape} and reference {reference_HW.shape} differ in shape"
            )
        reference, prediction = reference_HW.reshape(-1), prediction_HW.reshape(-1)
        if self.ignore_index is not None:
            seen = reference != self.ignore_index
            if not seen.all():
                reference, prediction = reference[seen], prediction[seen]
        for what, ids in (("prediction", prediction), ("reference", reference)):
            if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self.num_classes:
                raise ValueError(
                    f"{what} has class ids {ids.min()}..{ids.max()}, outside 0..{self.num_classes - 1}"
                )
        pair = reference.astype(np.int32) * self.num_classes + prediction
        counts = np.bincount(pair, minlength=self.num_classes**2)
        self.counts_CC += counts.reshape(self.num_classes, self.num_classes)
        return self

    def merge(self, other: ConfusionMatrix) -> Self:
        """Add another matrix's pixels, as if its frames had been given to this one."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.counts_CC += other.counts_CC
        return self

    @property
    def pixels(self) -> int:
        """Pixels that counted."""
        return int(self.counts_CC.sum())

    def iou(self) -> np.ndarray:
        """float64 (C,): intersection over union of each class, NaN where absent."""
        return iou_of(self.counts_CC)

    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that are not absent; NaN before any pixel counted."""
        iou = self.iou()
        present = iou[~np.isnan(iou)]
        return float(present.mean()) if present.size else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of counted pixels whose ids agree; NaN before any pixel counted."""
        return float(np.trace(self.counts_CC) / self.pixels) if self.pixels else float("nan")


def mean_iou(
    prediction_HW: np.ndarray,
    reference_HW: np.ndarray,
    num_classes: int,
    *,
    ignore_index: int | None = IGNORE_INDEX,
) -> float:
    """mIoU of a single pair of label maps (or of two equally shaped stacks of them)."""
    return (
        ConfusionMatrix(num_classes, ignore_index=ignore_index).update(prediction_HW, reference_HW).mean_iou()
    )


def iou_of(counts_CC: np.ndarray) -> np.ndarray:
    """float64 (C,): intersection over union of each class from pair counts, NaN where absent."""
    both = np.diag(counts_CC).astype(np.float64)
    either = counts_CC.sum(axis=0) + counts_CC.sum(axis=1) - both
    return np.divide(both, either, out=np.full(len(counts_CC), np.nan), where=either > 0)


def count_pairs(
    reference_HW: np.ndarray,
    prediction_HW: np.ndarray,
    num_classes: int,
    *,
    where_HW: np.ndarray | None = None,
) -> np.ndarray:
    """int64 (C, C): pixels by reference and prediction, both uint8 ids below `num_classes`, unchecked.

    `where_HW`: uint8, only pixels that are not 0 count. Three times as fast as a `ConfusionMatrix` update.
    """
    size = num_classes * num_classes
    depth, kind = (cv2.CV_8U, np.uint8) if size <= _BYTE_CODES else (cv2.CV_16U, np.uint16)
    codes_HW = reference_HW.astype(kind) * kind(num_classes)
    codes_HW = cv2.add(codes_HW, prediction_HW, dtype=depth)
    counts = cv2.calcHist([codes_HW], [0], where_HW, [size], [0, size])
    return np.rint(counts).astype(np.int64).reshape(num_classes, num_classes)
