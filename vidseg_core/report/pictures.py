"""Photographs for the page: a frame, its mask over it, both small and as JPEG."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from vidseg_core.report.overlay import blend, mask_picture
from vidseg_core.report.style import data_uri

THUMB = 336
"""Longest side of a picture in a strip, pixels: twice what is shown, for sharp screens."""


def over(frame_HW3: np.ndarray | None, labels_HW: np.ndarray) -> np.ndarray:
    """The mask over its frame, or alone where the frame is not to be had; `void` (255) is gray."""
    if frame_HW3 is None:
        return mask_picture(labels_HW)
    return blend(frame_HW3, labels_HW)


def shown_labels(labels_HW: np.ndarray, classes: int) -> np.ndarray:
    """What an evaluation calls `void` (the id behind the classes) in the colour of no label."""
    return np.where(labels_HW >= classes, 255, labels_HW).astype(np.uint8)


def jpeg_uri(picture_HW3: np.ndarray, longest: int = THUMB, quality: int = 82) -> str:
    """`data:` address of an RGB picture, scaled down."""
    height, width = picture_HW3.shape[:2]
    scale = longest / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture_HW3 = cv2.resize(picture_HW3, size, interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not ok:
        raise OSError("a picture could not be encoded as JPEG")
    return data_uri(data.tobytes(), "jpeg")


def side_by_side(pictures: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    """Pictures of one height in a row on white."""
    height = pictures[0].shape[0]
    bar = np.full((height, gap, 3), 255, np.uint8)
    row = [pictures[0]]
    for picture in pictures[1:]:
        if picture.shape[0] != height:
            width = max(1, round(picture.shape[1] * height / picture.shape[0]))
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        row += [bar, picture]
    return np.concatenate(row, axis=1)
