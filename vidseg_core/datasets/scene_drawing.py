"""How one frame of a shot is drawn, with its labels, in integers.

Model: for every pixel centre the world position is worked out (pan and zoom), and from it, for every shape,
the position in the shape's own turned and scaled axes; the shape's outline is an inequality there, so the
label of each pixel is exact, and its texture rides along with it. Painter's order: background, clutter,
shapes, pillars. Invariant: labels are set by the same mask as colours; lighting, the lens's slight blur and
noise come after and touch colours only.

Shape suffixes: H W frame rows and columns, h w a window of them, 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState

from vidseg_core.classes import SCENE_CLASSES, SCENE_RGB
from vidseg_core.datasets.fixed_point import ONE, TURN, UNIT, cosine, layered_noise, random_stream, sine
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scene_motion import ShotMotion

TILE = 128
"""Rows and columns of a shape's texture; it spans 8/3 of the shape's radius and repeats."""
MARGIN = 3
"""The background reaches beyond the frame by 1/MARGIN of its size on each side."""
Outline = Callable[[np.ndarray, np.ndarray, int], np.ndarray]

OUTLINES: dict[str, tuple[Outline, int]] = {
    "disc": (lambda u, v, r: u * u + v * v <= r * r, 256),
    "square": (lambda u, v, r: np.maximum(abs(u), abs(v)) * 256 <= 218 * r, 309),
    "triangle": (lambda u, v, r: (2 * v <= r) & (443 * abs(u) - 256 * v <= 256 * r), 256),
    "bar": (lambda u, v, r: (abs(u) * 256 <= 435 * r) & (abs(v) * 256 <= 72 * r), 442),
    "ring": (lambda u, v, r: (u * u + v * v <= r * r) & ((u * u + v * v) * 25 >= r * r * 9), 256),
}
"""For each class: is the point (u, v), in units, inside a shape of radius r; and its reach in r/256."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One shape, wherever it is: what it looks like and which label it leaves."""

    kind: str
    label: int
    tile_3: np.ndarray
    """uint8 (TILE, TILE, 3)."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a thing is: units, angle steps, units."""

    x: int
    y: int
    angle: int
    radius: int


@dataclass(frozen=True, kw_only=True)
class View:
    """World position, in units, of each pixel column and row, and world pixels per screen pixel in
    1/65536."""

    x_W: np.ndarray
    y_H: np.ndarray
    inverse_zoom: int


class ShotPainter:
    """Draws any frame of one shot; keeps the textures, nothing else."""

    def __init__(self, config: SceneConfig, shot: int, motion: ShotMotion) -> None:
        self._config, self._motion = config, motion
        self._background = _paint_background(random_stream(config.seed, 6, shot), config)
        self._clutter = _place_clutter(random_stream(config.seed, 7, shot), config)
        self._things = _dress_shapes(random_stream(config.seed, 8, shot), config)
        self._pillars = _place_pillars(random_stream(config.seed, 9, shot), config)
        self._noise = _noise_sheet(random_stream(config.seed, 10), config)
        self._seed = (config.seed, 11, shot)

    def draw(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """`(frame_HW3, labels_HW)`, both uint8 and new, of frame number `frame` of the shot."""
        motion, config = self._motion, self._config
        view = _view(config, motion, frame)
        canvas_HW3 = _sample_background(self._background, view, config)
        labels_HW = np.zeros((config.height, config.width), dtype=np.uint8)
        for thing, pose in self._clutter:
            _paint_thing(canvas_HW3, labels_HW, view, thing, pose)
        for number, thing in enumerate(self._things):
            pose = Pose(
                x=int(motion.x_TS[frame, number]),
                y=int(motion.y_TS[frame, number]),
                angle=int(motion.angle_TS[frame, number]),
                radius=int(motion.radius_TS[frame, number]),
            )
            _paint_thing(canvas_HW3, labels_HW, view, thing, pose)
        for thing, pose in self._pillars:
            _paint_thing(canvas_HW3, labels_HW, view, thing, pose)
        return self._expose(canvas_HW3, frame), labels_HW

    def _expose(self, canvas_HW3: np.ndarray, frame: int) -> np.ndarray:
        """Lighting, a 3x3 binomial blur, noise: from the painted canvas to what the camera records."""
        light = canvas_HW3.astype(np.int32) * self._motion.gain_T3[frame].astype(np.int32) >> 8
        padded = np.pad(light, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        soft = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) >> 4
        if self._config.noise:
            random = random_stream(*self._seed, frame)
            rows_H = (np.arange(self._config.height) + random.randint(1 << 16)) % self._noise.shape[0]
            columns_W = (np.arange(self._config.width) + random.randint(1 << 16)) % self._noise.shape[1]
            soft = soft + self._noise[rows_H[:, None], columns_W[None, :]]
        return np.clip(soft, 0, 255).astype(np.uint8)


def _view(config: SceneConfig, motion: ShotMotion, frame: int) -> View:
    zoom = int(motion.inverse_zoom_T[frame])
    from_middle_x = np.arange(config.width, dtype=np.int64) * UNIT + (UNIT - config.width * UNIT) // 2
    from_middle_y = np.arange(config.height, dtype=np.int64) * UNIT + (UNIT - config.height * UNIT) // 2
    return View(
        x_W=int(motion.camera_x_T[frame]) + (from_middle_x * zoom >> 16),
        y_H=int(motion.camera_y_T[frame]) + (from_middle_y * zoom >> 16),
        inverse_zoom=zoom,
    )


def _paint_thing(canvas_HW3: np.ndarray, labels_HW: np.ndarray, view: View, thing: Thing, pose: Pose) -> None:
    inside, reach = OUTLINES[thing.kind]
    reach_units = pose.radius * reach // 256 + UNIT
    left, right = np.searchsorted(view.x_W, (pose.x - reach_units, pose.x + reach_units))
    top, bottom = np.searchsorted(view.y_H, (pose.y - reach_units, pose.y + reach_units))
    if left >= right or top >= bottom:
        return
    x_w, y_h = (view.x_W[left:right] - pose.x)[None, :], (view.y_H[top:bottom] - pose.y)[:, None]
    cos, sin = int(cosine(np.array(pose.angle))), int(sine(np.array(pose.angle)))
    u_hw, v_hw = (x_w * cos + y_h * sin) // ONE, (y_h * cos - x_w * sin) // ONE
    mask_hw = inside(u_hw, v_hw, pose.radius)
    scale = (TILE * 3 << 16) // (8 * pose.radius)
    rows, columns = v_hw[mask_hw] * scale >> 16, u_hw[mask_hw] * scale >> 16
    canvas_HW3[top:bottom, left:right][mask_hw] = thing.tile_3[rows % TILE, columns % TILE]
    labels_HW[top:bottom, left:right][mask_hw] = thing.label


def _sample_background(texture_3: np.ndarray, view: View, config: SceneConfig) -> np.ndarray:
    """Bilinear samples of the background at the view's positions: first between rows, then between
    columns."""
    y_H = view.y_H - UNIT // 2 + (config.height // MARGIN) * UNIT
    x_W = view.x_W - UNIT // 2 + (config.width // MARGIN) * UNIT
    row = np.clip(y_H >> 8, 0, texture_3.shape[0] - 2)
    column = np.clip(x_W >> 8, 0, texture_3.shape[1] - 2)
    first, last = int(column[0]), int(column[-1]) + 2
    window = texture_3[:, first:last].astype(np.int32)
    rest_H = (y_H & 255).astype(np.int32)[:, None, None]
    between_rows = window[row] * (256 - rest_H) + window[row + 1] * rest_H
    rest_W = (x_W & 255).astype(np.int32)[None, :, None]
    column = column - first
    mixed = between_rows[:, column] * (256 - rest_W) + between_rows[:, column + 1] * rest_W
    return (mixed >> 16).astype(np.uint8)


def _paint_background(random: RandomState, config: SceneConfig) -> np.ndarray:
    rows, columns = config.height + 2 * (config.height // MARGIN), config.width + 2 * (config.width // MARGIN)
    side = min(config.height, config.width)
    relief = layered_noise(random, rows, columns, (side // 4, side // 10, side // 24, 4))
    tint = layered_noise(random, rows, columns, (side // 3, side // 7))
    base, other = (np.array(SCENE_RGB[0]) + random.randint(-20, 21, 3) for _ in range(2))
    mixed = base * (256 - tint[:, :, None]) + other * tint[:, :, None]
    return np.clip(mixed * (relief[:, :, None] + 130) >> 16, 0, 255).astype(np.uint8)


def _dress_shapes(random: RandomState, config: SceneConfig) -> list[Thing]:
    """Every class appears before any appears again; the order of depth is random."""
    labels = [1 + number % (len(SCENE_CLASSES) - 1) for number in range(config.shapes)]
    offset = int(random.randint(len(SCENE_CLASSES) - 1))
    labels = [1 + (label - 1 + offset) % (len(SCENE_CLASSES) - 1) for label in labels]
    random.shuffle(labels)
    return [
        Thing(kind=SCENE_CLASSES[label], label=label, tile_3=_tile(random, SCENE_RGB[label], jitter=18))
        for label in labels
    ]


def _tile(random: RandomState, base_rgb: tuple[int, int, int], *, jitter: int) -> np.ndarray:
    """A repeating texture: light and dark from relief and bands, paler patches, the base colour a little
    off."""
    base = np.clip(np.array(base_rgb) + random.randint(-jitter, jitter + 1, 3), 8, 240)
    relief = layered_noise(random, TILE, TILE, (32, 16, 8))
    pale = np.maximum(layered_noise(random, TILE, TILE, (32, 8)) - 120, 0)[:, :, None]
    across, period = np.arange(TILE), TILE // int(random.choice((4, 8)))
    bands = sine(across * TURN // period) * int(random.randint(10, 50)) // ONE
    shade = (relief + 120 + bands[:, None])[:, :, None]
    coloured = base * (256 - pale) + 200 * pale
    return np.clip(coloured * shade >> 16, 0, 255).astype(np.uint8)


def _place_clutter(random: RandomState, config: SceneConfig) -> list[tuple[Thing, Pose]]:
    kinds = SCENE_CLASSES[1:]
    return [
        (
            Thing(
                kind=kinds[random.randint(len(kinds))],
                label=0,
                tile_3=_tile(random, _gray(random), jitter=10),
            ),
            _random_pose(random, config),
        )
        for _ in range(config.clutter)
    ]


def _gray(random: RandomState) -> tuple[int, int, int]:
    level = int(random.randint(60, 190))
    return level, level, level - 8


def _random_pose(random: RandomState, config: SceneConfig) -> Pose:
    side = min(config.height, config.width)
    return Pose(
        x=int(random.randint(config.width * UNIT)),
        y=int(random.randint(config.height * UNIT)),
        angle=int(random.randint(TURN)),
        radius=side * UNIT * int(random.randint(8, 16)) // 100,
    )


def _place_pillars(random: RandomState, config: SceneConfig) -> list[tuple[Thing, Pose]]:
    """A pillar is a bar so large that both its ends lie outside the view."""
    pillars = []
    for _ in range(config.occluders):
        x = int(random.randint(config.width * UNIT * 2 // 10, config.width * UNIT * 8 // 10))
        angle = TURN // 4 + int(random.randint(-TURN // 40, TURN // 40))
        radius = min(config.height, config.width) * UNIT // 6
        pillars.append((x, angle, radius))
    return [
        (
            Thing(kind="pillar", label=0, tile_3=_tile(random, _gray(random), jitter=6)),
            Pose(x=x, y=config.height * UNIT // 2, angle=angle, radius=radius),
        )
        for x, angle, radius in pillars
    ]


OUTLINES["pillar"] = (lambda u, v, r: (abs(u) <= 12 * r) & (abs(v) * 256 <= 72 * r), 12 * 256)


def _noise_sheet(random: RandomState, config: SceneConfig) -> np.ndarray:
    """Zero-mean noise, about Gaussian, larger than it looks: frames read it at random offsets, wrapped
    around."""
    total = random.randint(-128, 129, (4, 256, 256, 3)).sum(axis=0)
    return (total * config.noise // 149).astype(np.int32)
