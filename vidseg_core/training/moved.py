"""Pairs with exactly known flow, made from any pictures: layers that move, each in its own way.

Model, after the Flying Chairs of FlowNet: a background and up to four blobs, each with a texture cut from a
random picture, lie one on another in the key frame. Each layer has a motion of its own: shift, turn, growth
and a smooth bend, which is what faces do. The current frame shows every layer moved; its flow at a pixel is
the motion of the layer on top there. Light, blur and noise then change the pictures and not the flow.
Invariant: a pair depends on the pictures and the random generator alone.

Legend: H, W size of a pair; 2 = (u, v) from current to key in pixels; 3 = RGB; pictures uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from vidseg_core.grid import pixel_grid

MOST_BLOBS = 4
SHIFT_PX = (0.3, 24.0)
"""Shifts are drawn between these, evenly in their logarithm."""
STILL_SHARE = 0.2
"""Share of backgrounds that do not move: cameras on a tripod."""


class MovedPair(NamedTuple):
    """Two pictures and the flow between them."""

    current_HW3: np.ndarray
    key_HW3: np.ndarray
    flow_HW2: np.ndarray


def moved_pair(pictures: Sequence[np.ndarray], random: Generator, height: int, width: int) -> MovedPair:
    """One pair whose textures come from `pictures` (uint8 HW3 of any sizes)."""
    key_HW3 = texture(pictures, random, height, width)
    still = random.random() < STILL_SHARE
    flow_HW2 = np.zeros((height, width, 2), np.float32) if still else _motion(random, height, width)
    current_HW3 = _read(key_HW3, flow_HW2)
    for _ in range(random.integers(MOST_BLOBS + 1)):
        texture_HW3 = texture(pictures, random, height, width)
        alpha_HW = blob(random, height, width)
        own_HW2 = _motion(random, height, width)
        alpha_now_HW = _read(alpha_HW, own_HW2, cv2.BORDER_CONSTANT)
        key_HW3 = _over(key_HW3, texture_HW3, alpha_HW)
        current_HW3 = _over(current_HW3, _read(texture_HW3, own_HW2), alpha_now_HW)
        flow_HW2 = np.where(alpha_now_HW[..., None] > 0.5, own_HW2, flow_HW2)
    current_HW3, key_HW3 = vary(current_HW3, key_HW3, random)
    return MovedPair(current_HW3, key_HW3, flow_HW2)


def vary(current_HW3: np.ndarray, key_HW3: np.ndarray, random: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both pictures (float32 or uint8) in another light, a little differently each, as uint8."""
    shared, sigma = random.uniform(0.7, 1.3, 3), random.uniform(0.0, 6.0) * (random.random() < 0.7)
    blur = random.uniform(0.3, 1.2) if random.random() < 0.3 else 0.0
    varied = []
    for picture_HW3 in (current_HW3, key_HW3):
        own = 1.0 + random.normal(0.0, 0.03)
        noise = random.standard_normal(picture_HW3.shape, np.float32) * np.float32(sigma)
        lit_HW3 = picture_HW3 * np.float32(own) * shared.astype(np.float32) + noise
        lit_HW3 = lit_HW3 + np.float32(random.normal(0.0, 4.0))
        if blur:
            lit_HW3 = cv2.GaussianBlur(lit_HW3, (0, 0), blur)
        varied.append(np.clip(lit_HW3, 0, 255).astype(np.uint8))
    return varied[0], varied[1]


def texture(pictures: Sequence[np.ndarray], random: Generator, height: int, width: int) -> np.ndarray:
    """float32 texture_HW3: a random cut of a random picture, often mirrored."""
    picture = pictures[int(random.integers(len(pictures)))]
    least = max(height / picture.shape[0], width / picture.shape[1])
    scale = least * random.uniform(1.0, 1.6)
    rows, columns = round(height / scale), round(width / scale)
    top = random.integers(picture.shape[0] - rows + 1) if picture.shape[0] > rows else 0
    left = random.integers(picture.shape[1] - columns + 1) if picture.shape[1] > columns else 0
    cut = picture[top : top + rows, left : left + columns]
    if random.random() < 0.5:
        cut = cut[:, ::-1]
    return cv2.resize(np.ascontiguousarray(cut), (width, height)).astype(np.float32)


def _motion(random: Generator, height: int, width: int) -> np.ndarray:
    """flow_HW2 float32 of one layer: an affine map around a random point, and a smooth bend."""
    low, high = np.log(SHIFT_PX)
    length, heading = np.exp(random.uniform(low, high)), random.uniform(0.0, 2.0 * np.pi)
    lively = min(1.0, length / 10.0)
    turn, growth = random.normal(0.0, 0.06 * lively), 1.0 + random.normal(0.0, 0.06 * lively)
    centre_2 = random.uniform(0.0, 1.0, 2) * (width, height)
    cos, sin = growth * np.cos(turn), growth * np.sin(turn)
    around_HW2 = pixel_grid(height, width) - centre_2.astype(np.float32)
    matrix_22 = np.array([[cos - 1.0, sin], [-sin, cos - 1.0]], np.float32)
    shift_2 = np.array([np.cos(heading), np.sin(heading)], np.float32) * np.float32(length)
    flow_HW2 = around_HW2 @ matrix_22 + shift_2
    if random.random() < 0.6:
        knots = random.integers(3, 9)
        bend = random.standard_normal((knots, knots, 2), np.float32) * np.float32(random.uniform(0.0, 4.0))
        flow_HW2 = flow_HW2 + cv2.resize(bend, (width, height), interpolation=cv2.INTER_CUBIC)
    return flow_HW2


def blob(random: Generator, height: int, width: int) -> np.ndarray:
    """alpha_HW float32 in 0..1: a round or a ragged shape with a soft edge."""
    corners = int(random.choice((4, 7, 24)))
    angles = np.sort(random.uniform(0.0, 2.0 * np.pi, corners))
    reach = random.uniform(0.08, 0.4) * min(height, width)
    ragged = random.uniform(0.6, 1.0, corners) if corners < 24 else np.ones(corners)
    stretch_2 = random.uniform(0.5, 1.5, 2)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * reach * ragged[:, None] * stretch_2
    points += random.uniform(0.0, 1.0, 2) * (width, height)
    alpha_HW = np.zeros((height, width), np.float32)
    cv2.fillPoly(alpha_HW, [np.round(points).astype(np.int32)], (1.0,))
    return cv2.GaussianBlur(alpha_HW, (0, 0), 0.6)


def _read(picture: np.ndarray, flow_HW2: np.ndarray, border: int = cv2.BORDER_REFLECT_101) -> np.ndarray:
    place_HW2 = (flow_HW2 + pixel_grid(*flow_HW2.shape[:2])).astype(np.float32)
    return cv2.remap(picture, place_HW2[..., 0], place_HW2[..., 1], cv2.INTER_LINEAR, borderMode=border)


def _over(below_HW3: np.ndarray, above_HW3: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    return below_HW3 + (above_HW3 - below_HW3) * alpha_HW[..., None]
