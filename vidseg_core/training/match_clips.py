"""Clips to learn matching from that nobody had to label: objects pasted before moving footage, and scenes.

Model: a pasted clip has a background from some footage, which drifts and zooms, and objects before it, each
on a smooth path of its own: cut out of labelled clips, where they go on moving, or blobs with a texture. The
object on top is the label. Invariant: a clip depends on its material and the random generator alone.

Legend: T frames, H, W size of a clip; 3 = RGB; t time in frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from vidseg_core.datasets.records import IGNORE
from vidseg_core.datasets.scene_config import MOTION_CYCLE, SceneConfig
from vidseg_core.datasets.scenes import Scene
from vidseg_core.training.flow_clips import FlowClip
from vidseg_core.training.moved import blob, texture

CUTOUT_SHARE = 0.6
"""Share of objects that are cut out of labelled clips, where there are some."""
MOST_OBJECTS = 4
RATES = (6, 10, 15, 25)
"""Frames a second of drawn scenes: what moves per second is drawn, so a low rate means large steps."""


def drawn_clip(seed: int, frames: int, size: tuple[int, int]) -> FlowClip:
    """A generated scene without cuts: any motion, any rate, few or many shapes, light that may change."""
    random = np.random.default_rng((seed, 1))
    config = SceneConfig(
        height=size[0],
        width=size[1],
        frames=frames,
        fps=int(random.choice(RATES)),
        seed=seed,
        shapes=int(random.integers(2, 12)),
        clutter=int(random.integers(0, 8)),
        occluders=int(random.integers(0, 3)),
        motion=MOTION_CYCLE[int(random.integers(len(MOTION_CYCLE)))],
        camera=float(random.uniform(0.0, 2.0)),
        cuts=0,
        lighting=float(random.uniform(0.0, 0.6)),
        noise=int(random.integers(0, 8)),
    )
    pictures, labels = zip(*((frame.frame_HW3, frame.labels_HW) for frame in Scene(config)), strict=True)
    return FlowClip(name=f"drawn-{seed}", frames_THW3=np.stack(pictures), labels_THW=np.stack(labels))


def pasted_clip(
    name: str,
    footage: Sequence[FlowClip],
    labelled: Sequence[FlowClip],
    random: Generator,
    *,
    frames: int,
    size: tuple[int, int],
) -> FlowClip:
    """One pasted clip; `footage`: backgrounds and textures; `labelled`: what objects are cut out of."""
    pictures = _background(footage, random, frames, size)
    labels = np.zeros((frames, *size), np.uint8)
    for number in range(int(random.integers(1, MOST_OBJECTS + 1))):
        cut = bool(labelled) and random.random() < CUTOUT_SHARE
        thing = _cutout(labelled, random, frames) if cut else _blob(footage, random, frames, size)
        if thing is not None:
            _paste(pictures, labels, number + 1, thing, random)
    noise = random.uniform(0.0, 4.0)
    pictures += random.standard_normal(pictures.shape, np.float32) * np.float32(noise)
    return FlowClip(name=name, frames_THW3=np.clip(pictures, 0, 255).astype(np.uint8), labels_THW=labels)


@dataclass(frozen=True, slots=True)
class _Thing:
    """An object before it is moved."""

    pictures_THW3: np.ndarray
    alpha_THW: np.ndarray
    """uint8, 255: the object."""


def _background(
    footage: Sequence[FlowClip], random: Generator, frames: int, size: tuple[int, int]
) -> np.ndarray:
    """float32 pictures_THW3."""
    clip = footage[int(random.integers(len(footage)))]
    chosen = _some_frames(clip, random, frames)
    rows, columns = clip.frames_THW3.shape[1:3]
    zoom = max(size[0] / rows, size[1] / columns) * random.uniform(1.05, 1.3)
    spare = np.array([columns * zoom - size[1], rows * zoom - size[0]]) / 2.0
    path_T2 = np.stack([_smooth(random, frames, float(room)) for room in spare], 1)
    mirror = random.random() < 0.5
    moved = []
    for picture_HW3, path_2 in zip(clip.frames_THW3[chosen], path_T2, strict=True):
        x, y = path_2 - spare
        matrix_23 = np.array([[zoom, 0.0, x], [0.0, zoom, y]])
        source = np.ascontiguousarray(picture_HW3[:, ::-1]) if mirror else picture_HW3
        moved.append(cv2.warpAffine(source, matrix_23, size[::-1], borderMode=cv2.BORDER_REFLECT))
    return np.stack(moved).astype(np.float32)


def _cutout(labelled: Sequence[FlowClip], random: Generator, frames: int) -> _Thing | None:
    """A class (or all that is not class 0) of a labelled clip; None where it is not to be seen."""
    clip = labelled[int(random.integers(len(labelled)))]
    assert clip.labels_THW is not None
    chosen = _some_frames(clip, random, frames)
    labels_THW = clip.labels_THW[chosen]
    known = np.unique(labels_THW[0])
    known = known[(known > 0) & (known != IGNORE)]
    if not len(known):
        return None
    one = int(random.choice(known)) if random.random() < 0.3 else None
    is_it_THW = labels_THW == one if one else (labels_THW > 0) & (labels_THW != IGNORE)
    if not 100 <= is_it_THW[0].sum() <= 0.7 * is_it_THW[0].size:
        return None
    alpha_THW = np.where(is_it_THW, 255, 0).astype(np.uint8)
    if random.random() < 0.5:
        return _Thing(clip.frames_THW3[chosen][:, :, ::-1], alpha_THW[:, :, ::-1])
    return _Thing(clip.frames_THW3[chosen], alpha_THW)


def _blob(footage: Sequence[FlowClip], random: Generator, frames: int, size: tuple[int, int]) -> _Thing:
    """A shape with a texture of its own, which does not change."""
    clip = footage[int(random.integers(len(footage)))]
    picture = clip.frames_THW3[int(random.integers(len(clip.frames_THW3)))]
    pixels_HW3 = texture([picture], random, *size) * random.uniform(0.6, 1.3, 3).astype(np.float32)
    alpha_HW = np.round(blob(random, *size) * 255).astype(np.uint8)
    pixels_HW3 = np.clip(pixels_HW3, 0, 255).astype(np.uint8)
    shape = (frames, *size)
    return _Thing(np.broadcast_to(pixels_HW3, (*shape, 3)), np.broadcast_to(alpha_HW, shape))


def _paste(pictures: np.ndarray, labels: np.ndarray, number: int, thing: _Thing, random: Generator) -> None:
    """The object over all that is there, in place, on a smooth path."""
    frames, height, width = labels.shape
    ys, xs = np.nonzero(thing.alpha_THW[0])
    if not len(ys):
        return
    centre = (float(xs.mean()), float(ys.mean()))
    across = _smooth(random, frames, random.uniform(5.0, 80.0)) + random.uniform(0.2, 0.8) * width - centre[0]
    down = (
        _smooth(random, frames, random.uniform(3.0, 40.0)) + random.uniform(0.25, 0.75) * height - centre[1]
    )
    scale = (
        np.exp(_smooth(random, frames, 0.2)) * random.uniform(0.6, 1.15) * (height / thing.alpha_THW.shape[1])
    )
    turn = _smooth(random, frames, random.uniform(0.0, 15.0))
    for t in range(frames):
        matrix_23 = cv2.getRotationMatrix2D(centre, float(turn[t]), float(scale[t]))
        matrix_23[:, 2] += across[t], down[t]
        moved = [
            cv2.warpAffine(np.ascontiguousarray(part[t]), matrix_23, (width, height))
            for part in (thing.pictures_THW3, thing.alpha_THW)
        ]
        alpha_HW = cv2.GaussianBlur(moved[1], (0, 0), 0.8).astype(np.float32) / 255.0
        pictures[t] += (moved[0] - pictures[t]) * alpha_HW[..., None]
        labels[t][alpha_HW > 0.5] = number


def _some_frames(clip: FlowClip, random: Generator, frames: int) -> np.ndarray:
    """Numbers of consecutive frames, forth and back where there are too few."""
    there = len(clip.frames_THW3)
    first = int(random.integers(max(1, there - frames + 1)))
    if there == 1:
        return np.zeros(frames, int)
    steps = (first + np.arange(frames)) % (2 * there - 2)
    return np.where(steps < there, steps, 2 * there - 2 - steps)


def _smooth(random: Generator, frames: int, reach: float) -> np.ndarray:
    """A path_T float64 within `reach` of 0: two slow waves."""
    waves, phases = random.uniform(0.2, 1.4, 2), random.uniform(0.0, 2.0 * np.pi, 2)
    turns = 2.0 * np.pi * waves[:, None] * np.arange(frames) / 50.0 + phases[:, None]
    return reach * (np.array([0.65, 0.35]) @ np.sin(turns))
