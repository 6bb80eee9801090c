"""What can be measured of a frame and its key at the price of their flow: the inputs of learned schedulers.

Model: DVRL section 3.1 leaves the deviation D(i -> k) open. Here it is what the heuristics look at, and where
in the picture it happens: flow length (DVSNet Eq. 3), gray difference (DVSNet Eq. 2) and photometric error
after warping, each as a mean over the picture, over its middle and over the worst cell of a grid.

Invariant: the features depend on the two pictures, the flow and the distance alone, and bit by bit the same
numbers come out when tables are built and when the engine decides. All sums are sums of integers.

Legend: h, w flow size; 2 = (u, v); F features; G cells per side of the grid; gray uint8, flow float32.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from vidseg_core.propagation.warp import warp_picture
from vidseg_core.scheduling.deviation import Deviation

GRID = 6
"""G: the picture is looked at in G x G cells (fewer when it has fewer pixels)."""

BAD_WARP = 16
"""Gray levels: a pixel whose warped key differs by more is not explained by motion."""

FLOW_STEPS = 64.0
"""Flow lengths are rounded to 1 / 64 pixel before they are added up, so that any order gives one sum."""

FEATURE_NAMES = (
    "distance",  # frames since the key
    "flow_mean",  # flow length in percent of the longest side: mean over the picture,
    "flow_middle",  # over its middle (the inner cells),
    "flow_worst",  # in the cell where it is largest,
    "flow_spread",  # mean absolute deviation of the cells
    "flow_own",  # mean length left when the mean motion is taken away, in percent: what is not the camera
    "warp_mean",  # photometric error after warping, gray levels
    "warp_middle",
    "warp_worst",
    "warp_spread",
    "warp_bad",  # share of pixels with an error above BAD_WARP
    "difference_mean",  # gray difference without any flow, gray levels
    "difference_middle",
    "difference_worst",
    "difference_spread",
    "brightness",  # change of the mean gray level, absolute
    "outside",  # share of pixels whose flow points out of the key picture: content that is new
    "texture",  # mean absolute horizontal gradient of the frame, gray levels: how much an error can say
)
"""Names of the F features, in order."""


def cheap_features(
    current_gray: np.ndarray, key_gray: np.ndarray, flow_hw2: np.ndarray, distance: int
) -> np.ndarray:
    """float32 [F], finite. `current_gray`, `key_gray`: gray_hw uint8; `flow_hw2`: from current to key.

    `distance`: frames between the two, at least 1. Costs about as much as one more warp of the picture.
    """
    side = float(max(current_gray.shape))
    error_hw = cv2.absdiff(current_gray, warp_picture(key_gray, flow_hw2))
    difference_hw = cv2.absdiff(current_gray, key_gray)
    length_hw, own, outside = _motion(flow_hw2)
    to_percent = 100.0 / (FLOW_STEPS * side)
    values = [
        float(distance),
        *(to_percent * value for value in _over_cells(length_hw)),
        to_percent * own,
        *_over_cells(error_hw),
        cv2.countNonZero(cv2.compare(error_hw, _level(BAD_WARP), cv2.CMP_GT)) / error_hw.size,
        *_over_cells(difference_hw),
        abs(_sum(current_gray) - _sum(key_gray)) / current_gray.size,
        outside,
        _texture(current_gray),
    ]
    return np.array(values, np.float32)


def features_of(deviation: Deviation) -> np.ndarray:
    """float32 [F]: the same numbers, from what a scheduler is handed."""
    return cheap_features(deviation.gray_current, deviation.gray_key, deviation.flow, deviation.lkd)


def _motion(flow_hw2: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Lengths (float32, whole multiples of 1 / FLOW_STEPS pixel, times FLOW_STEPS), mean length of what the
    mean motion does not explain (same unit), share of vectors that leave the picture."""
    height, width = flow_hw2.shape[:2]
    steps_hw2 = np.rint(flow_hw2 * np.float32(FLOW_STEPS))
    u_hw, v_hw = steps_hw2[..., 0], steps_hw2[..., 1]
    mean_u, mean_v = (np.float32(round(_sum(part) / part.size)) for part in (u_hw, v_hw))
    own_hw = _length(u_hw - mean_u, v_hw - mean_v)
    x_w = np.arange(width, dtype=np.float32) * np.float32(FLOW_STEPS)
    y_h = np.arange(height, dtype=np.float32)[:, None] * np.float32(FLOW_STEPS)
    to_x_hw, to_y_hw = u_hw + x_w, v_hw + y_h
    leaves_hw = (to_x_hw < 0) | (to_x_hw > x_w[-1]) | (to_y_hw < 0) | (to_y_hw > y_h[-1])
    return _length(u_hw, v_hw), _sum(own_hw) / own_hw.size, np.count_nonzero(leaves_hw) / leaves_hw.size


def _texture(gray_hw: np.ndarray) -> float:
    if gray_hw.shape[1] < 2:
        return 0.0
    return _sum(cv2.absdiff(gray_hw[:, 1:], gray_hw[:, :-1])) / gray_hw.size


def _length(u_hw: np.ndarray, v_hw: np.ndarray) -> np.ndarray:
    """Whole numbers: numpy's square root is exact to the last bit, cv2.magnitude's is not."""
    return np.rint(np.sqrt(u_hw * u_hw + v_hw * v_hw))


def _over_cells(values_hw: np.ndarray) -> tuple[float, float, float, float]:
    """Mean over the picture, mean over its inner cells, mean of the worst cell, spread between cells."""
    height, width = values_hw.shape
    sums: Any = cv2.integral(values_hw, sdepth=cv2.CV_64F)  # exact: sums of whole numbers
    rows_g, columns_g = _edges(height), _edges(width)
    corners_gg = sums[np.ix_(rows_g, columns_g)]
    cells_gg = np.diff(np.diff(corners_gg, axis=0), axis=1)
    means_gg = cells_gg / np.outer(np.diff(rows_g), np.diff(columns_g))
    inner_gg = means_gg[_inner(len(rows_g) - 1), _inner(len(columns_g) - 1)]
    return (
        float(sums[-1, -1]) / values_hw.size,
        _mean(inner_gg),
        float(means_gg.max()),
        _mean(np.abs(means_gg - _mean(means_gg))),
    )


def _mean(values: np.ndarray) -> float:
    """Added up in a fixed order: numpy's own order depends on the machine."""
    return sum(values.ravel().tolist()) / values.size


def _edges(length: int) -> np.ndarray:
    """Where the cells along a side of `length` pixels begin, and the end."""
    cells = min(GRID, length)
    return np.arange(cells + 1) * length // cells


def _inner(cells: int) -> slice:
    """The middle two thirds of the cells along a side."""
    rim = cells // 6
    return slice(rim, cells - rim)


def _sum(picture: np.ndarray) -> float:
    """Sum of a one-channel picture of whole numbers, exact."""
    return cv2.sumElems(picture)[0]


def _level(gray: int) -> Any:
    """A gray level as cv2's comparisons take it."""
    return float(gray)
