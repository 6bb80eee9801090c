"""What the key's mask adds to the cheap features: whether motion and errors lie where the classes meet.

Model: a propagated mask goes wrong at its borders, and mIoU counts small classes as much as large ones. So
the warp error, the gray difference, the length and the unevenness of the flow are looked at again in a band
along the borders of the propagated mask, and as means over its classes. How thin the classes are shows how
much IoU one pixel of shift costs; whether the borders still lie on edges of the picture shows whether they
have slipped.

Invariant: the features depend on the two pictures, their flow and the key's mask alone. All sums are sums of
integers.

Legend: h, w flow size; 2 = (u, v); M features; C classes in the mask; gray and labels uint8, flow float32.
"""

from __future__ import annotations

import cv2
import numpy as np

from vidseg_core.propagation.warp import warp_labels, warp_picture
from vidseg_core.scheduling.cheap_features import BAD_WARP, FLOW_STEPS

BAND = 2
"""Pixels on either side of a border that belong to the band."""

MOST_THIN = 2.0
"""Thinness (border pixels / pixels of a class) counts up to here."""

MASK_FEATURES = (
    "band",  # share of pixels in the band
    "band_error",  # warp error in the band, gray levels
    "band_bad",  # share of the band with a warp error above BAD_WARP
    "band_flow",  # flow length in the band, percent of the longest side
    "band_bend",  # absolute differences between neighbouring flow vectors in the band, pixels
    "band_edge",  # absolute gray gradient in the band, gray levels
    "band_kept",  # that, over the same of the key along its own borders
    "class_error",  # warp error: mean over the classes,
    "class_error_worst",  # in the worst class
    "class_thin",  # band pixels / pixels of a class: mean over the classes,
    "class_thin_worst",  # of the thinnest class
    "class_difference",  # gray difference, the same two ways
    "class_difference_worst",
    "class_flow",  # flow length in percent, the same two ways
    "class_flow_worst",
    "classes",  # how many the mask holds
)
"""Names of the M features, in order."""


def mask_features(
    current_gray: np.ndarray, key_gray: np.ndarray, flow_hw2: np.ndarray, key_labels: np.ndarray
) -> np.ndarray:
    """float32 [M], finite. `key_labels`: N's mask of the key at the size of the pictures; flow from current
    to key."""
    to_percent = 100.0 / (FLOW_STEPS * max(current_gray.shape))
    labels_hw = warp_labels(key_labels, flow_hw2)
    error_hw = cv2.absdiff(current_gray, warp_picture(key_gray, flow_hw2))
    difference_hw = cv2.absdiff(current_gray, key_gray)
    steps_hw2 = np.rint(flow_hw2 * np.float32(FLOW_STEPS))
    length_hw = np.rint(np.sqrt(steps_hw2[..., 0] ** 2 + steps_hw2[..., 1] ** 2))
    band_hw = _band(labels_hw)
    edge = _mean_in(band_hw, _gradient(current_gray))
    key_edge = _mean_in(_band(key_labels), _gradient(key_gray))
    pixels_C, thin_C = _classes(labels_hw, band_hw)
    values = [
        cv2.countNonZero(band_hw) / band_hw.size,
        _mean_in(band_hw, error_hw),
        _mean_in(band_hw, (error_hw > BAD_WARP).view(np.uint8)),
        to_percent * _mean_in(band_hw, length_hw),
        _mean_in(band_hw, _gradient(steps_hw2[..., 0]) + _gradient(steps_hw2[..., 1])) / FLOW_STEPS,
        edge,
        (edge + 1.0) / (key_edge + 1.0),
        *_over_classes(labels_hw, error_hw, pixels_C),
        *_mean_and_worst(thin_C),
        *_over_classes(labels_hw, difference_hw, pixels_C),
        *(to_percent * value for value in _over_classes(labels_hw, length_hw, pixels_C)),
        float(np.count_nonzero(pixels_C)),
    ]
    return np.array(values, np.float32)


def _band(labels_hw: np.ndarray) -> np.ndarray:
    """uint8 0 or 1: another class is at most BAND pixels away."""
    square = np.ones((2 * BAND + 1, 2 * BAND + 1), np.uint8)
    spread_hw = cv2.subtract(cv2.dilate(labels_hw, square), cv2.erode(labels_hw, square))
    return (spread_hw > 0).view(np.uint8)


def _gradient(values_hw: np.ndarray) -> np.ndarray:
    """float32: absolute differences to the left and the upper neighbour, added up; whole numbers."""
    gradient_hw = np.zeros(values_hw.shape, np.float32)
    gradient_hw[:, 1:] += cv2.absdiff(values_hw[:, 1:], values_hw[:, :-1])
    gradient_hw[1:] += cv2.absdiff(values_hw[1:], values_hw[:-1])
    return gradient_hw


def _mean_in(where_hw: np.ndarray, values_hw: np.ndarray) -> float:
    """Mean of whole numbers where `where_hw` is 1; 0 if it is nowhere."""
    count = cv2.countNonZero(where_hw)
    chosen = values_hw[where_hw.view(bool)]
    return float(chosen.sum(dtype=np.float64)) / count if count else 0.0


def _classes(labels_hw: np.ndarray, band_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pixels of every class id, thinness of the classes that are there)."""
    pixels_C = np.bincount(labels_hw.ravel(), minlength=1)
    border_C = np.bincount(labels_hw[band_hw.view(bool)], minlength=len(pixels_C))
    there = pixels_C > 0
    return pixels_C, np.minimum(border_C[there] / pixels_C[there], MOST_THIN)


def _over_classes(labels_hw: np.ndarray, values_hw: np.ndarray, pixels_C: np.ndarray) -> tuple[float, float]:
    sums_C = np.bincount(labels_hw.ravel(), weights=values_hw.ravel(), minlength=len(pixels_C))
    there = pixels_C > 0
    return _mean_and_worst(sums_C[there] / pixels_C[there])


def _mean_and_worst(values_C: np.ndarray) -> tuple[float, float]:
    return sum(values_C.tolist()) / len(values_C), float(values_C.max())
