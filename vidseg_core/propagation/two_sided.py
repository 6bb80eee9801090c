"""Two-sided propagation: between two keys, take each pixel from the side that explains it better.

A batch job may look ahead. A frame between key k and the next key n is predicted twice, from k and from n.
The photometric error of a warp tells, pixel by pixel, where that side is wrong (occluded, moved out, lost by
the flow). Errors are summed over a square window, since a single pixel's error says little, and the side with
the lower sum wins; a tie goes to the key that is nearer in time, the earlier one when both are as near.

All sums are exact integers, so the choice does not depend on machine or thread count.

Legend: H, W flow size; error_HW uint8 gray levels; left = the earlier key, right = the later one.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from vidseg_core.propagation.warp import error_sums


def prefer_right(left_HW: np.ndarray, right_HW: np.ndarray, right_is_nearer: bool) -> np.ndarray:
    """advantage_HW float32: positive where the right side explains the pixel better.

    Half a unit, less than any difference of sums, breaks ties by distance in time.
    """
    advantage_HW = cv2.subtract(error_sums(left_HW), error_sums(right_HW))
    return cv2.add(advantage_HW, 0.5 if right_is_nearer else -0.5)  # type: ignore[call-overload]


def choose(left: Any, right: Any, advantage_HW: np.ndarray) -> Any:
    """Pixel by pixel one of two `Carried` of the same shape, at their own resolution."""
    if isinstance(left, np.ndarray):
        mask_HW = _right_mask(advantage_HW, *left.shape)
        out_HW = left.copy()
        np.copyto(out_HW, right, where=mask_HW)
        return out_HW
    if isinstance(left, torch.Tensor):
        mask_HW = torch.from_numpy(_right_mask(advantage_HW, *left.shape[-2:])).to(left.device)
        return torch.where(mask_HW, right, left)
    return tuple(choose(a, b, advantage_HW) for a, b in zip(left, right, strict=True))


def _right_mask(advantage_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """mask_HW bool at another resolution: the advantage is interpolated first, then cut at zero."""
    if advantage_HW.shape != (height, width):
        shrinks = height <= advantage_HW.shape[0] and width <= advantage_HW.shape[1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        advantage_HW = cv2.resize(advantage_HW, (width, height), interpolation=interpolation)
    return advantage_HW > 0
