"""From a labelled frame to a training sample: geometry for both, then colour and quality for the frame alone.

Model: one similarity (scale, rotation, flip, with a little stretch) maps the frame onto a crop, a square
unless another size is asked for. The frame is resized first, with area averaging where it shrinks, and then
turned; the labels go through the composed map in one nearest-neighbour step, so that no class is invented and
both stay aligned to half a pixel. What the frame does not cover has a random colour and the label `IGNORE`,
or shows another frame.
Frames that are learned together (`augment_all`) have one draw of geometry, colour and quality: what moves
between them is what moved before the camera. Only sensor noise is each frame's own.

Invariant: the sample is a function of the records, the recipe and the generator's state alone; that of the
first record is the same with and without others.

Shape suffixes: H W rows and columns of the crop, 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vidseg_core.config.recipes import AugmentRecipe
from vidseg_core.datasets.records import IGNORE, Record

__all__ = ["augment", "augment_all"]

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def augment(
    record: Record,
    recipe: AugmentRecipe,
    rng: np.random.Generator,
    another: Callable[[np.random.Generator], Record] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One sample: (float32 3HW RGB in 0..1, int64 HW labels), both of side `recipe.crop`.

    A record without labels gives labels that are `IGNORE` everywhere. `another` draws the record that shows
    behind this one (`recipe.behind`).
    """
    frames, labels = augment_all([record], recipe, rng, another)
    return frames[0], labels[0]


def augment_all(
    records: Sequence[Record],
    recipe: AugmentRecipe,
    rng: np.random.Generator,
    another: Callable[[np.random.Generator], Record] | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The frames and labels of records of one size as one sample, each as `augment` gives them.

    The labels of the first one decide where the crop lies. `size`: (rows, columns) of the crop; None: the
    recipe's square.
    """
    size = size or (recipe.crop, recipe.crop)
    scales = recipe.scale_min, recipe.scale_max
    place = _place(records[0], recipe, scales, recipe.focus, rng, size)
    crops = [_cut(record, place) for record in records]
    bare_HW = ~crops[0][2]
    if another is not None and recipe.behind > 0 and bare_HW.any() and rng.random() < recipe.behind:
        behind_HW3, behind_HW = _behind(another(rng), recipe, rng, size)
        for frame_HW3, labels_HW, _ in crops:
            frame_HW3[bare_HW], labels_HW[bare_HW] = behind_HW3[bare_HW], behind_HW[bare_HW]
    units = [frame_HW3.astype(np.float32) / np.float32(255) for frame_HW3, _, _ in crops]
    if recipe.colour > 0:
        units = _recolour(units, recipe.colour, rng)
    if rng.random() < recipe.blur:
        units = [np.clip(unit_HW3, 0, 1) for unit_HW3 in _degrade(units, rng)]
    frames = [np.ascontiguousarray(unit_HW3.transpose(2, 0, 1)) for unit_HW3 in units]
    return frames, [labels_HW.astype(np.int64) for _, labels_HW, _ in crops]


def _behind(
    record: Record, recipe: AugmentRecipe, rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Another frame and its labels, at a scale at which it covers the crop."""
    least = max(size) / min(record.frame_HW3.shape[:2])
    scales = least, max(least, recipe.scale_max)
    return _cut(record, _place(record, recipe, scales, 0.0, rng, size))[:2]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a crop lies in a frame of one size."""

    rows: int
    columns: int
    """Size to which the frame is brought first."""
    turn_33: np.ndarray
    """From there to the crop."""
    whole_33: np.ndarray
    """From the frame to the crop."""
    size: tuple[int, int]
    """(rows, columns) of the crop."""
    fill: list[int]
    """The colour of what the frame does not cover."""


def _place(
    record: Record,
    recipe: AugmentRecipe,
    scales: tuple[float, float],
    focus: float,
    rng: np.random.Generator,
    size: tuple[int, int],
) -> _Place:
    height, width = record.frame_HW3.shape[:2]
    scale = float(np.exp(rng.uniform(np.log(scales[0]), np.log(scales[1]))))
    stretch = float(np.exp(rng.uniform(-1.0, 1.0) * np.log1p(recipe.stretch) / 2))
    columns, rows = max(1, round(width * scale * stretch)), max(1, round(height * scale / stretch))
    resize = _resize_map(columns / width, rows / height)
    turn = _turn_map(rng.uniform(-recipe.rotate, recipe.rotate), recipe.flip and rng.random() < 0.5)
    centre = _centre(_labels(record), turn @ resize, size, focus, rng)
    turn[:2, 2] += _reach(size) - centre
    fill = [int(value) for value in rng.integers(0, 256, 3)]
    return _Place(rows=rows, columns=columns, turn_33=turn, whole_33=turn @ resize, size=size, fill=fill)


def _cut(record: Record, place: _Place) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frame, labels, and the mask of what the frame covers."""
    frame_HW3, labels_HW = record.frame_HW3, _labels(record)
    height, width = frame_HW3.shape[:2]
    shrinks = place.columns < width and place.rows < height
    resized = cv2.resize(
        frame_HW3,
        (place.columns, place.rows),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    side, whole, how = place.size[::-1], place.whole_33[:2], cv2.INTER_NEAREST
    crop_HW3 = cv2.warpAffine(
        resized, place.turn_33[:2], side, flags=cv2.INTER_LINEAR, borderValue=place.fill
    )
    crop_HW = cv2.warpAffine(labels_HW, whole, side, flags=how, borderValue=IGNORE)
    covered_HW = cv2.warpAffine(np.ones((height, width), np.uint8), whole, side, flags=how, borderValue=0)
    return crop_HW3, crop_HW, covered_HW.astype(bool)


def _labels(record: Record) -> np.ndarray:
    """The record's labels; `IGNORE` everywhere where it has none."""
    if record.labels_HW is None:
        return np.full(record.frame_HW3.shape[:2], IGNORE, np.uint8)
    return record.labels_HW


def _resize_map(across: float, down: float) -> np.ndarray:
    """What `cv2.resize` does to pixel positions (half-pixel centres), as a 3x3 matrix."""
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1.0]])


def _turn_map(degrees: float, mirrored: bool) -> np.ndarray:
    angle = np.deg2rad(degrees)
    cosine, sine, sign = float(np.cos(angle)), float(np.sin(angle)), -1.0 if mirrored else 1.0
    return np.array([[sign * cosine, -sine, 0], [sign * sine, cosine, 0], [0, 0, 1.0]])


def _centre(
    labels_HW: np.ndarray, mapping: np.ndarray, size: tuple[int, int], share: float, rng: np.random.Generator
) -> np.ndarray:
    """Where the crop's centre lies in the mapped frame: anywhere that keeps the crop inside, where it can;
    or, for that `share`, within half a crop of a pixel of a class drawn at random."""
    height, width = labels_HW.shape
    corners = mapping @ np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1.0] * 4])
    low, high = corners[:2].min(axis=1), corners[:2].max(axis=1)
    reach = _reach(size)
    inner = np.minimum(low + reach, (low + high) / 2), np.maximum(high - reach, (low + high) / 2)
    if rng.random() >= share:
        slack = np.maximum(0.0, reach - (high - low) / 2)
        return rng.uniform(inner[0] - slack, inner[1] + slack)
    present = np.flatnonzero(np.bincount(labels_HW.ravel(), minlength=256)[:IGNORE])
    if not len(present):
        return rng.uniform(*inner)
    places = np.flatnonzero(labels_HW.ravel() == rng.choice(present))
    row, column = divmod(int(rng.choice(places)), width)
    return (mapping @ np.array([column, row, 1.0]))[:2] + rng.uniform(-reach, reach, 2) * 0.8


def _reach(size: tuple[int, int]) -> np.ndarray:
    """(x, y): from the centre of a crop of (rows, columns) to that of its outermost pixels."""
    return (np.array(size[::-1]) - 1) / 2


def _recolour(frames: Sequence[np.ndarray], strength: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Gamma, white balance and hue, saturation, contrast, brightness, and light from one side."""

    def factor(range_: float) -> float:
        return float(np.exp(rng.uniform(-range_, range_) * strength))

    gamma = factor(0.6)
    mix_33 = np.diag(np.exp(rng.uniform(-0.25, 0.25, 3) * strength)) @ _hue(
        rng.uniform(-0.35, 0.35) * strength
    )
    vivid = 0.0 if rng.random() < 0.1 * strength else factor(0.7)
    mix_33 = (vivid * np.eye(3) + (1 - vivid) * np.outer(np.ones(3), LUMA)) @ mix_33
    contrast = factor(0.5)
    middle = 0.5 * (1 - contrast) + rng.uniform(-0.2, 0.2) * strength
    mix_34 = np.hstack([contrast * mix_33, np.full((3, 1), middle)])
    (rows, columns), slope = frames[0].shape[:2], rng.uniform(-0.5, 0.5, 2) * strength
    down, across = (np.linspace(-1, 1, side, dtype=np.float32) for side in (rows, columns))
    light_HW = 1 + np.float32(slope[0]) * down[:, None] + np.float32(slope[1]) * across[None, :]
    mixed = [cv2.transform(cv2.pow(frame_HW3, gamma), mix_34) for frame_HW3 in frames]
    return [np.clip(each_HW3 * light_HW[:, :, None], 0, 1).astype(np.float32) for each_HW3 in mixed]


def _hue(angle: float) -> np.ndarray:
    """Rotation of RGB about the grey axis, radians."""
    cosine, sine, third = np.cos(angle), np.sin(angle), 1 / 3
    cross = np.sqrt(third) * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0.0]])
    return cosine * np.eye(3) + (1 - cosine) * third * np.ones((3, 3)) + sine * cross


def _degrade(frames: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """One of: out of focus, few pixels, strong compression, sensor noise."""
    side = min(frames[0].shape[:2])
    kind = int(rng.integers(4))
    if kind == 0:
        sigma = float(rng.uniform(0.5, 2.5))
        return [cv2.GaussianBlur(frame_HW3, (0, 0), sigma) for frame_HW3 in frames]
    if kind == 1:
        small = max(1, round(side / rng.uniform(1.5, 4.0)))
        return [_few_pixels(frame_HW3, small) for frame_HW3 in frames]
    if kind == 2:
        quality = int(rng.integers(8, 50))
        return [_compressed(frame_HW3, quality) for frame_HW3 in frames]
    first_HW3 = rng.standard_normal(frames[0].shape, dtype=np.float32)
    strength = np.float32(rng.uniform(0.01, 0.08))
    others = (rng.standard_normal(frame_HW3.shape, dtype=np.float32) for frame_HW3 in frames[1:])
    noises = (first_HW3, *others)
    return [frame_HW3 + noise_HW3 * strength for frame_HW3, noise_HW3 in zip(frames, noises, strict=True)]


def _few_pixels(frame_HW3: np.ndarray, small: int) -> np.ndarray:
    """`small`: pixels of its shorter side."""
    rows, columns = (round(side * small / min(frame_HW3.shape[:2])) for side in frame_HW3.shape[:2])
    low = cv2.resize(frame_HW3, (columns, rows), interpolation=cv2.INTER_AREA)
    return cv2.resize(low, frame_HW3.shape[1::-1], interpolation=cv2.INTER_CUBIC)


def _compressed(frame_HW3: np.ndarray, quality: int) -> np.ndarray:
    how = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, packed = cv2.imencode(".jpg", np.rint(frame_HW3[:, :, ::-1] * 255).astype(np.uint8), how)
    unpacked = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    assert unpacked is not None
    return unpacked[:, :, ::-1].astype(np.float32) / np.float32(255)
