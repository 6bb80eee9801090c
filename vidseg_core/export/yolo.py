"""Ultralytics' YOLO segmentation: pictures, a text file of polygons for each, and `data.yaml`.

    images/NAME.jpg
    labels/NAME.txt    CLASS X1 Y1 X2 Y2 ..., a line for each connected piece of a class
    data.yaml          where they are, and the class names

Coordinates are shares of width and height, a quarter of a pixel inside the pixel that is meant: some readers
cut them to whole pixels, some round. Invariant: each line's polygon, filled so by OpenCV's `fillPoly`, is the
piece. A piece with holes is one polygon all the same: it walks to each hole and back on one line.

Shape suffixes: `_HW` height, width; `_N2` points (x, y).
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import yaml

from vidseg_core.export.take import ONE_A_CLASS, Classes, Take, write_file

INSIDE = 0.25
"""Of a pixel."""
_NO_SPLIT = "Every frame is in both sets: divide the frames by video (VIDEO-FRAME) before you train."
_PIECES = "A line of labels/ is a connected piece of a class."


def write_yolo(take: Take) -> int:
    """`images/`, `labels/` and `data.yaml`; how many frames."""
    count = 0
    for shot in take.all_shots():
        count += 1
        lines = "".join(_lines(shot.labels_HW, take.classes))
        write_file(take.out / "labels" / f"{shot.name}.txt", lines.encode())
        take.write_picture(f"images/{shot.name}.jpg", shot)
    names = dict(enumerate(take.classes.names))
    about = {"train": "images", "val": "images", "names": names}
    comments = "".join(f"# {line}\n" for line in (ONE_A_CLASS, _PIECES, _NO_SPLIT))
    text = comments + yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    write_file(take.out / "data.yaml", text.encode())
    return count


def _lines(labels_HW: np.ndarray, classes: Classes) -> Iterator[str]:
    height, width = labels_HW.shape
    for label in np.unique(labels_HW).tolist():
        if label in classes.left_out:
            continue
        for points_N2 in polygons(labels_HW == label):
            shares_N2 = (points_N2 + INSIDE) / (width, height)
            yield f"{label} {' '.join(f'{share:.6f}' for share in shares_N2.reshape(-1))}\n"


def polygons(mask_HW: np.ndarray) -> Iterator[np.ndarray]:
    """int [n, 2]: one polygon of at least three points for each connected piece of a mask."""
    outlines, levels = cv2.findContours(mask_HW.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for place, outline in enumerate(outlines):
        _, _, child, parent = levels[0][place]  # next, previous, first hole, outline around
        if parent >= 0:
            continue
        holes = []
        while child >= 0:
            holes.append(outlines[child][:, 0])
            child = levels[0][child][0]
        yield _corners(_with_holes(outline[:, 0], holes, mask_HW))


def _with_holes(points_N2: np.ndarray, holes: list[np.ndarray], mask_HW: np.ndarray) -> np.ndarray:
    """One polygon that walks an outline and its holes.

    From the leftmost point of a hole the way goes left to the first edge: that of a hole further left, which
    is part of the polygon by then, or of the outline.
    """
    for hole_N2 in sorted(holes, key=lambda hole_N2: hole_N2[:, 0].min()):
        start = int(hole_N2[:, 0].argmin())
        column, row = hole_N2[start]
        outside = np.flatnonzero(~mask_HW[row, :column])
        left = outside[-1] + 1 if len(outside) else 0
        here = int(np.flatnonzero((points_N2 == (left, row)).all(axis=1))[0])
        around_N2 = np.roll(hole_N2, -start, axis=0)
        points_N2 = np.concatenate((points_N2[: here + 1], around_N2, around_N2[:1], points_N2[here:]))
    return points_N2


def _corners(points_N2: np.ndarray) -> np.ndarray:
    """The polygon without points on the way from one corner to the next; at least three points."""
    steps_N2 = points_N2 - np.roll(points_N2, 1, axis=0)
    corners_N2 = points_N2[(np.roll(steps_N2, -1, axis=0) != steps_N2).any(axis=1)]
    corners_N2 = corners_N2 if len(corners_N2) else points_N2
    return corners_N2 if len(corners_N2) > 2 else corners_N2[np.arange(3) % len(corners_N2)]
