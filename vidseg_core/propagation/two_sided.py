"""Two-sided propagation: between two keys, take each pixel from the side that explains it better.

A batch job may look ahead. A frame between key k and the next key n is predicted twice, from k and from n.
The photometric error of a warp shows, pixel by pixel, where that side is wrong (occluded, moved out, lost by
the flow). A single pixel's error says little, so the mean error over a small and the mean over a large square
around the pixel are added: the small one finds edges, the large one decides where there is no texture. The
side with the lower sum wins; a tie goes to the key that is nearer in time, the earlier one if both are.

All sums are exact integers, so the choice does not depend on machine or thread count.

Legend: H, W flow size; errors uint8 gray levels, HW or HW3; left = the earlier key, right = the later one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch

SMALL, LARGE = 5, 13
"""Sides of the two squares in pixels at flow size."""


@dataclass(slots=True)
class Side:
    """What one key says of one frame."""

    carried: Any
    distance: int
    """Frames between the two, at least 1."""
    error: np.ndarray | None = None
    """How badly the key's picture, moved to the frame, explains it: uint8 gray levels at flow size; None
    where there is no other side."""


Sides: TypeAlias = tuple[Side, Side | None]
"""What the key before a frame says of it, and the key after it, if there is one."""


def put_together(frames: Iterable[Sides]) -> Iterator[Any]:
    """Each frame of a gap from both sides, or from the left one alone."""
    for left, right in frames:
        yield left.carried if right is None else _better_side(left, right)


def _better_side(left: Side, right: Side) -> Any:
    assert left.error is not None and right.error is not None
    nearer = right.distance < left.distance
    return choose(left.carried, right.carried, prefer_right(left.error, right.error, right_is_nearer=nearer))


def prefer_right(left: np.ndarray, right: np.ndarray, right_is_nearer: bool) -> np.ndarray:
    """advantage_HW float32: positive where the right side explains the pixel better.

    Both means are multiplied by both areas: whole numbers below 2**24, so exact in float32. An offset of
    half a unit, less than any difference, breaks ties by distance in time.
    """
    difference = cv2.subtract(left, right, dtype=cv2.CV_16S)
    if difference.ndim == 3:
        difference = difference.sum(axis=2, dtype=np.int16)
    small_HW = _sums(difference, SMALL) * np.float32(LARGE**2)
    large_HW = _sums(difference, LARGE) * np.float32(SMALL**2)
    advantage_HW = cv2.add(small_HW, large_HW)
    advantage_HW += 0.5 if right_is_nearer else -0.5
    return advantage_HW


def _sums(difference_HW: np.ndarray, side: int) -> np.ndarray:
    return cv2.boxFilter(difference_HW, cv2.CV_32F, (side, side), normalize=False)


def choose(left: Any, right: Any, advantage_HW: np.ndarray) -> Any:
    """Pixel by pixel one of two `Carried` of the same shape, at their own resolution."""
    if isinstance(left, np.ndarray):
        mask_HW = _right_mask(advantage_HW, *left.shape)
        return cv2.copyTo(right, mask_HW.view(np.uint8), left.copy())
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
