"""The coordinates of pixels, which every reading along a flow begins with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=24)
def pixel_grid(height: int, width: int) -> np.ndarray:
    """grid_HW2 float32, read-only: the pixel coordinates (x, y) themselves."""
    grid_HW2 = np.empty((height, width, 2), np.float32)
    grid_HW2[..., 0] = np.arange(width, dtype=np.float32)[None, :]
    grid_HW2[..., 1] = np.arange(height, dtype=np.float32)[:, None]
    grid_HW2.flags.writeable = False
    return grid_HW2
