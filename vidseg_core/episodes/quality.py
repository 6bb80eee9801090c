"""What a mask is worth: one number per frame, against labels or against N's own mask.

Model, frame by frame (DVRL section 3.2):
- `labels` (Eq. 1): mean IoU over the classes that the frame's labels or the mask hold; pixels without a
  label count nowhere, and a frame without any labelled pixel has no quality (NaN);
- `fidelity` (Eq. 2's substitution, in the unit of Eq. 1): the same mean IoU, with N's own mask of the frame
  as its labels;
- `accuracy` (Eq. 2 as it is written, and the confidence of DVSNet Eq. 1): share of the pixels on which mask
  and N's own mask agree;
- `weighted`: 1 minus what the wrong pixels cost of the *clip's* mean IoU, against N's own mask. Let n_c be
  the pixels of class c in the whole clip, C' the number of classes that it shows, T its frames with a
  label. A pixel of class a that the mask says to be b costs T (1 / n_a + 1 / n_b) / C' frames, with
  1 / n_b = 0 for a class that the clip never shows.

Why `weighted` adds up: over the clip IoU_c = (n_c - missed_c) / (n_c + added_c), which is
1 - (missed_c + added_c) / n_c to first order, and every wrong pixel is missed in one class and added to
another. So the mean over the frames is the clip's mean IoU to first order, and since every pixel counts by
itself, what the regions of a frame lose adds up to what the frame loses. All tables of a clip, of all
its segments and regions, share its n_c (`ClassPixels`), and a region counts its inner part alone. The other
three are numbers of one frame or crop, overlap and all. A frame with many wrong pixels of a rare class can be
worth less than 0.

Where labels stand in for N they are its mask: `accuracy` is then the share of the labelled pixels that agree
with them, and a pixel without a label is carried along as one class more, `void`. A mask that says `void`
where a label is known is wrong there, but `void` is no class in the mean.

Legend: C classes, K = C + 1 with `void` last, H, W working size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np

from vidseg_core.config.catalogue import WEIGHTED
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.metrics.confusion import IGNORE_INDEX, ConfusionMatrix

Quality: TypeAlias = Literal["labels", "fidelity", "accuracy", "weighted"]
_BYTE_CODES = 256
_WHOLE = (slice(None), slice(None))


@dataclass(frozen=True, slots=True)
class ClassPixels:
    """How much there is of each class in a clip or a part of it, by which wrong pixels are weighted."""

    pixels_C: np.ndarray
    """int64: labelled pixels."""
    counted_T: np.ndarray
    """bool: which frames have a labelled pixel."""

    @classmethod
    def of(cls, masks: Iterable[np.ndarray | None], classes: int) -> ClassPixels:
        """Of label maps with ids below `classes`; 255 and `void` count nowhere."""
        pixels_C, counted = np.zeros(classes, np.int64), list[bool]()
        for labels_HW in masks:
            found_C = np.zeros(classes, np.int64)
            if labels_HW is not None:
                found_C += np.bincount(labels_HW.ravel(), minlength=classes)[:classes]
            pixels_C += found_C
            counted.append(bool(found_C.any()))
        return cls(pixels_C, np.array(counted, bool))

    def beside(self, other: ClassPixels) -> ClassPixels:
        """With those of another part of the same frames."""
        return ClassPixels(self.pixels_C + other.pixels_C, self.counted_T | other.counted_T)

    def then(self, other: ClassPixels) -> ClassPixels:
        """With those of other frames."""
        counted_T = np.concatenate([self.counted_T, other.counted_T])
        return ClassPixels(self.pixels_C + other.pixels_C, counted_T)

    @property
    def frames(self) -> int:
        """With a labelled pixel."""
        return int(self.counted_T.sum())

    def weights_KK(self) -> np.ndarray:
        """float64 [K, K], label and mask: what a wrong pixel costs, in frames; see the module."""
        pixels_K = np.append(self.pixels_C, 0)
        shown = int((pixels_K > 0).sum())
        share_K = np.where(pixels_K > 0, self.frames / np.maximum(pixels_K, 1), 0.0) / max(1, shown)
        weights_KK = share_K[:, None] + share_K[None, :]
        weights_KK[-1], weights_KK[np.diag_indices(len(pixels_K))] = 0.0, 0.0
        return weights_KK


class Truth:
    """One frame's reference, ready to be compared with many masks.

    A mask's pair counts are a histogram of `truth * K + mask`, which is one pass over bytes.
    """

    __slots__ = ("_codes_hw", "_inner", "_quality", "_weights_KK", "classes", "counted", "seen")

    def __init__(
        self,
        labels_HW: np.ndarray | None,
        classes: int,
        quality: Quality,
        weights_KK: np.ndarray | None = None,
        inner: tuple[slice, slice] | None = None,
    ) -> None:
        """`labels_HW`: ids below `classes`, or 255; None: the frame has no labels. `weights_KK`: of the clip,
        for `weighted` (`ClassPixels`). `inner`: the part that `weighted` counts; None: all of it."""
        self.classes, self._quality, self._weights_KK = classes, quality, weights_KK
        self._inner = inner if quality == WEIGHTED and inner is not None else _WHOLE
        self.counted, self.seen = False, frozenset[int]()
        self._codes_hw: np.ndarray | None = None
        if labels_HW is None:
            return
        side = classes + 1
        ids_HW = np.where(labels_HW == IGNORE_INDEX, classes, labels_HW)
        present = np.flatnonzero(np.bincount(ids_HW.ravel(), minlength=side))
        if present[-1] > classes:
            raise EpisodeError(f"a label says class {present[-1]}, there are {classes} classes")
        self.seen = frozenset(int(label) for label in present if label < classes)
        ids_hw = ids_HW[self._inner]
        self.counted = bool((ids_hw < classes).any())
        if self.counted:
            small = side * side <= _BYTE_CODES
            self._codes_hw = (ids_hw.astype(np.uint32) * side).astype(np.uint8 if small else np.uint16)

    def quality(self, mask_HW: np.ndarray) -> float:
        """Quality of a mask with ids up to `classes` (`void`); NaN if the frame has no labelled pixel."""
        if self._codes_hw is None:
            return float("nan")
        counts_KK = self._counts(mask_HW[self._inner])
        if self._weights_KK is not None:
            return 1.0 - float((counts_KK * self._weights_KK).sum())
        matrix = ConfusionMatrix(self.classes + 1)
        matrix.counts_CC += counts_KK
        if self._quality == "accuracy":
            return matrix.pixel_accuracy()
        iou = matrix.iou()[: self.classes]
        return float(iou[~np.isnan(iou)].mean())

    def _counts(self, mask_hw: np.ndarray) -> np.ndarray:
        """int64 [K, K]: pixels by truth and mask; the row of pixels without a label is 0."""
        side = self.classes + 1
        assert self._codes_hw is not None
        depth = cv2.CV_8U if self._codes_hw.dtype == np.uint8 else cv2.CV_16U
        codes_hw = cv2.add(self._codes_hw, mask_hw, dtype=depth)
        counts = cv2.calcHist([codes_hw], [0], None, [side * side], [0, side * side])
        counts_KK = counts.astype(np.int64).reshape(side, side)
        counts_KK[self.classes] = 0
        return counts_KK


def as_mask(labels_HW: np.ndarray, classes: int) -> np.ndarray:
    """uint8: labels in the place of N's mask; pixels without a label become the class `void` after the
    others."""
    return np.where(labels_HW == IGNORE_INDEX, classes, labels_HW).astype(np.uint8)
