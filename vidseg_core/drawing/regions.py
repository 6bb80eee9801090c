"""Regions of a frame, drawn into its picture: thin lines between them, a frame around each that is key.

Model: a region's inner part, at the size of the picture. Legend: H, W size of the picture; 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from vidseg_core.config.regions import RegionsConfig

KEY_RGB = (213, 94, 0)
"""Mark of key frames, and of regions that are key."""
_LINE_RGB = (235, 235, 235)
_FRAME = 0.008
"""Width of a frame, of the picture's shorter side; at least two pixels."""


def mark_regions(
    picture_HW3: np.ndarray, regions: RegionsConfig, size: tuple[int, int], keys: Sequence[bool]
) -> None:
    """Draw into the picture; `size` (rows, columns) is that of the mask, `keys` go row by row of the grid."""
    height, width = picture_HW3.shape[:2]
    down, across = height / size[0], width / size[1]
    parts = [
        (round(top * down), round(bottom * down), round(left * across), round(right * across))
        for top, bottom, left, right in regions.inner_parts(size)
    ]
    for top, bottom, left, right in parts:
        if top:
            picture_HW3[top, left:right] = _LINE_RGB
        if left:
            picture_HW3[top:bottom, left] = _LINE_RGB
    thick = max(2, round(_FRAME * min(height, width)))
    for (top, bottom, left, right), is_key in zip(parts, keys, strict=True):
        for n in range(thick if is_key else 0):
            cv2.rectangle(picture_HW3, (left + n, top + n), (right - 1 - n, bottom - 1 - n), KEY_RGB, 1)
