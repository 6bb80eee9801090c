"""Where everything is in every frame of a shot: plain integer arrays, worked out before anything is drawn.

Model: an activity curve (0 at rest, 256 when fast) is written first, phase by phase; shapes and camera move
along their paths by that much. Invariant: at activity 0 nothing moves, so two frames of a rest differ by
noise and lighting only. Units, angles and factors as in `fixed_point`.

Shape suffixes: T frames of the shot, S shapes, 3 = RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState

from vidseg_core.datasets.fixed_point import ONE, TURN, UNIT, cosine, random_stream, sine
from vidseg_core.datasets.scene_config import SceneConfig

REST, CALM, FAST = 0, 80, 256
"""Activity levels: a shape at 256 crosses the shorter side of the frame in about four seconds."""
PHASES = {
    "still": ((REST, 5), (CALM, 1)),
    "calm": ((CALM, 1),),
    "fast": ((FAST, 1),),
    "mixed": ((REST, 3), (CALM, 2), (FAST, 2)),
}
"""For each kind of motion: the levels that phases are drawn from, with their weights."""
RAMP_PER_SECOND = 600
"""How quickly the activity may change: about half a second from rest to fast."""


@dataclass(frozen=True, kw_only=True)
class ShotMotion:
    """All positions of one shot; see the module docstring for units."""

    activity_T: np.ndarray
    camera_x_T: np.ndarray
    camera_y_T: np.ndarray
    inverse_zoom_T: np.ndarray
    """World pixels per screen pixel, in 1/65536."""
    gain_T3: np.ndarray
    """Brightness factors of R, G and B, in 1/256."""
    x_TS: np.ndarray
    y_TS: np.ndarray
    angle_TS: np.ndarray
    radius_TS: np.ndarray


def shot_lengths(config: SceneConfig) -> list[int]:
    """Frames of each shot: the clip cut into `cuts + 1` runs of roughly, not exactly, equal length."""
    random = random_stream(config.seed, 1)
    shots = config.cuts + 1
    slack = max(0, config.frames // shots // 4)
    edges = [
        config.frames * number // shots + int(random.randint(-slack, slack + 1)) for number in range(1, shots)
    ]
    inner = sorted({min(max(1, edge), config.frames - 1) for edge in edges})
    spare = (frame for frame in range(1, config.frames) if frame not in inner)
    while len(inner) < config.cuts:
        inner = sorted([*inner, next(spare)])
    bounds = [0, *inner, config.frames]
    return [stop - start for start, stop in zip(bounds, bounds[1:], strict=False)]


def plan_motion(config: SceneConfig, shot: int, length: int) -> ShotMotion:
    """The positions of shot number `shot`, `length` frames long."""
    random = random_stream(config.seed, 2, shot)
    activity_T = _activity(random, config, length)
    side = min(config.height, config.width)
    walked_T = np.cumsum(activity_T) - activity_T[0]
    camera = _camera(random_stream(config.seed, 3, shot), config, activity_T, walked_T, side)
    shapes = _shapes(random_stream(config.seed, 4, shot), config, activity_T, walked_T, side)
    gain_T3 = _lighting(random_stream(config.seed, 5, shot), config, length)
    return ShotMotion(activity_T=activity_T, gain_T3=gain_T3, **camera, **shapes)


def _activity(random: RandomState, config: SceneConfig, length: int) -> np.ndarray:
    levels = [level for level, weight in PHASES[config.motion] for _ in range(weight)]
    target = np.empty(length, dtype=np.int64)
    frame, previous = 0, -1
    while frame < length:
        choices = [level for level in levels if level != previous] or levels
        previous = choices[random.randint(len(choices))]
        seconds_in_eighths = random.randint(8, 21)
        stop = frame + max(1, seconds_in_eighths * config.fps // 8)
        target[frame:stop] = previous * random.randint(80, 141) // 100
        frame = stop
    step = max(1, RAMP_PER_SECOND // config.fps)
    activity, current = np.empty(length, dtype=np.int64), int(target[0])
    for position, goal in enumerate(target.tolist()):
        current += min(max(goal - current, -step), step)
        activity[position] = current
    return activity


def _camera(
    random: RandomState, config: SceneConfig, activity_T: np.ndarray, walked_T: np.ndarray, side: int
) -> dict[str, np.ndarray]:
    strength = round(config.camera * 256)
    starts, rates = random.randint(0, TURN, 3), random.randint(8, 17, 3)
    phases = [
        start + walked_T * TURN * rate // (FAST * 128 * config.fps)
        for start, rate in zip(starts, rates, strict=True)
    ]
    reach = side * UNIT * strength // (256 * 6)
    shake_T2 = random.randint(-256, 257, (len(activity_T), 2)).astype(np.int64)
    restless_T = np.maximum(activity_T - CALM * 2, 0) * strength * side
    shake_T2 = shake_T2 * restless_T[:, None] // (96 * 256 * 200)
    zoom_T = 65536 + sine(phases[2]) * strength * 6 // 2560
    return {
        "camera_x_T": config.width * UNIT // 2 + sine(phases[0]) * reach // ONE + shake_T2[:, 0],
        "camera_y_T": config.height * UNIT // 2 + sine(phases[1]) * reach // (ONE * 2) + shake_T2[:, 1],
        "inverse_zoom_T": zoom_T * 4 // 5,
    }


def _shapes(
    random: RandomState, config: SceneConfig, activity_T: np.ndarray, walked_T: np.ndarray, side: int
) -> dict[str, np.ndarray]:
    count = config.shapes
    heading, pace = random.randint(0, TURN, count), random.randint(60, 160, count)
    speed = side * UNIT * pace // (400 * config.fps)
    walked_TS = np.cumsum(activity_T[:, None] * speed[None, :], axis=0)
    angle_rate, breath_rate = random.randint(-64, 65, count), random.randint(10, 30, count)
    breath_TS = sine(
        random.randint(0, TURN, count) + walked_T[:, None] * TURN * breath_rate // (FAST * 128 * config.fps)
    )
    radius = side * UNIT * random.randint(10, 19, count) // 100
    start_x, start_y = (
        random.randint(0, config.width * UNIT, count),
        random.randint(0, config.height * UNIT, count),
    )
    return {
        "x_TS": _bounce(start_x + walked_TS * cosine(heading) // (ONE * FAST), config.width * UNIT),
        "y_TS": _bounce(start_y + walked_TS * sine(heading) // (ONE * FAST), config.height * UNIT),
        "angle_TS": random.randint(0, TURN, count)
        + walked_T[:, None] * TURN * angle_rate // (FAST * 384 * config.fps),
        "radius_TS": radius + radius * breath_TS // (ONE * 6),
    }


def _bounce(position: np.ndarray, size: int) -> np.ndarray:
    """Fold a straight path into 0..size, as a ball between two walls."""
    folded = position % (2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)


def _lighting(random: RandomState, config: SceneConfig, length: int) -> np.ndarray:
    strength = round(config.lighting * 256)
    frame_T = np.arange(length, dtype=np.int64)
    start, period = random.randint(0, TURN), random.randint(3, 7) * config.fps
    switch, cast_3 = random.randint(0, max(1, length)), random.randint(-24, 25, 3)
    swing_T = sine(start + frame_T * TURN // period) * 50 // ONE
    swing_T = swing_T - np.where(frame_T >= switch, 45, 0)
    return 256 + (swing_T[:, None] + cast_3[None, :]) * strength // 256
