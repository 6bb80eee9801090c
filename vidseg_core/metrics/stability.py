"""Temporal stability Tsb (ETC Tables IV and VIII): how much contours change their shape from frame to frame.

Model: the T of DAVIS (Perazzi et al., CVPR 2016), which ETC cites. The longest contour of a class in frame
t - 1 and the one in frame t become polygons with a point every `STEP` pixels at most; each point is described
by where the others lie around it (shape context, Belongie et al. 2002: a histogram over 5 distances and 12
angles, distances relative to their mean); dynamic time warping matches the points in order at the least
chi-squared cost; Tsb of the pair is the mean cost of the matches that are one to one. 0: the shape is the
same, wherever it is; higher is worse. Contours are closed, so the matching is done twice: from any point,
then from the best match that it found.

DAVIS has one object. Here a pair's Tsb is the mean over the classes that both frames hold, void left out, and
a clip's is the mean over its pairs. DAVIS's own matching code is not public in full, so the last digits may
differ from it.

Time and memory grow with the square of the points, so a contour has `MOST` at most: longer ones are described
by that many, still evenly along the contour, whatever the size of the frame. Shapes are then compared at that
detail. It bounds a pair of classes to some tens of milliseconds and megabytes.

Shape suffixes: H W rows and columns; N, M points of two contours; 2 = (x, y); B histogram bins.
"""

from __future__ import annotations

import cv2
import numpy as np

STEP = 3.0
"""Distance between neighbouring points, pixels; longer where a contour would have more than `MOST`."""
MOST = 400
"""Points of a contour, at most."""
FEWEST = 4
"""Contours of fewer points have no shape."""
RINGS = np.logspace(np.log10(1 / 8), np.log10(2.0), 5)
"""Outer radii of the rings, relative to the mean distance between points."""
SECTORS = 12


def temporal_stability(before_HW: np.ndarray, current_HW: np.ndarray, classes: int) -> float:
    """Mean Tsb over the classes below `classes` that both masks hold; NaN if there is none."""
    found = []
    for label in range(classes):
        contours = [contour_of(mask_HW == label) for mask_HW in (before_HW, current_HW)]
        if all(len(points_N2) >= FEWEST for points_N2 in contours):
            found.append(shape_change(*contours))
    return float(np.mean(found)) if found else float("nan")


def contour_of(inside_HW: np.ndarray) -> np.ndarray:
    """float64 points_N2 along the longest contour of the region, evenly, `STEP` apart or `MOST` of them."""
    contours, _ = cv2.findContours(inside_HW.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return np.empty((0, 2))
    corners_K2 = max((contour[:, 0, :] for contour in contours), key=len).astype(np.float64)
    closed_K2 = np.concatenate([corners_K2, corners_K2[:1]])
    along_K = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed_K2, axis=0), axis=1))])
    points = min(int(np.ceil(along_K[-1] / STEP)), MOST)
    at_N = np.linspace(0.0, along_K[-1], points, endpoint=False)
    return np.stack([np.interp(at_N, along_K, closed_K2[:, axis]) for axis in (0, 1)], axis=1)


def shape_change(before_N2: np.ndarray, current_M2: np.ndarray) -> float:
    """Mean cost of matching two closed contours."""
    cost_NM = _chi_squared(shape_context(before_N2), shape_context(current_M2))
    pairs_K2 = _path(cost_NM)
    turn, shift = pairs_K2[np.argmin(cost_NM[pairs_K2[:, 0], pairs_K2[:, 1]])]
    turned_NM = np.roll(cost_NM, (-turn, -shift), axis=(0, 1))
    pairs_K2 = _one_to_one(_path(turned_NM), turned_NM)
    return float(turned_NM[pairs_K2[:, 0], pairs_K2[:, 1]].mean())


def shape_context(points_N2: np.ndarray) -> np.ndarray:
    """float64 [N, B]: for each point the share of the others in each ring and sector around it."""
    away_NN2 = points_N2[None] - points_N2[:, None]
    distance_NN = np.linalg.norm(away_NN2, axis=2)
    mean = distance_NN.sum() / max(1, distance_NN.size - len(points_N2))
    ring_NN = np.searchsorted(RINGS, distance_NN / max(mean, 1e-12), side="right")
    angle_NN = np.arctan2(away_NN2[..., 1], away_NN2[..., 0]) % (2 * np.pi)
    sector_NN = np.minimum((angle_NN / (2 * np.pi / SECTORS)).astype(int), SECTORS - 1)
    inside_NN = (ring_NN < len(RINGS)) & ~np.eye(len(points_N2), dtype=bool)
    bins = len(RINGS) * SECTORS
    rows_NN = np.arange(len(points_N2))[:, None] * bins + ring_NN * SECTORS + sector_NN
    counts = np.bincount(rows_NN[inside_NN], minlength=len(points_N2) * bins).reshape(-1, bins)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _chi_squared(first_NB: np.ndarray, second_MB: np.ndarray) -> np.ndarray:
    """cost_NM, 0 to 1."""
    cost_NM = np.zeros((len(first_NB), len(second_MB)))
    for a_N, b_M in zip(first_NB.T, second_MB.T, strict=True):
        if a_N.any() or b_M.any():
            total_NM = a_N[:, None] + b_M[None]
            difference_NM = a_N[:, None] - b_M[None]
            cost_NM += 0.5 * np.divide(
                difference_NM**2, total_NM, out=np.zeros_like(total_NM), where=total_NM > 0
            )
    return cost_NM


def _path(cost_NM: np.ndarray) -> np.ndarray:
    """pairs_K2 of the cheapest way from the first corner to the last, by steps of one."""
    rows, columns = cost_NM.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for diagonal in range(rows + columns - 1):
        n = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        m = diagonal - n
        before = np.minimum(np.minimum(total[n, m + 1], total[n + 1, m]), total[n, m])
        total[n + 1, m + 1] = cost_NM[n, m] + before
    n, m = rows, columns
    pairs = [(n, m)]
    while (n, m) != (1, 1):
        steps = ((n - 1, m - 1), (n - 1, m), (n, m - 1))
        n, m = min(steps, key=lambda step: total[step])
        pairs.append((n, m))
    return np.array(pairs[::-1]) - 1


def _one_to_one(pairs_K2: np.ndarray, cost_NM: np.ndarray) -> np.ndarray:
    """Of each point's matches the cheapest, on one side and then on the other."""
    for side in (0, 1):
        order = np.lexsort((cost_NM[pairs_K2[:, 0], pairs_K2[:, 1]], pairs_K2[:, side]))
        pairs_K2 = pairs_K2[order]
        first = np.concatenate([[True], np.diff(pairs_K2[:, side]) > 0])
        pairs_K2 = pairs_K2[first]
    return pairs_K2
