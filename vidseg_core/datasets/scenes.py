"""Generated clips of textured moving shapes with exact labels: material for tests, training and the demo.

Model: a clip is one or more shots joined by hard cuts. In each, labelled shapes move before a textured
background, over gray clutter and behind gray pillars, while the camera pans, zooms and shakes and the light
may change; see `scene_motion` for where things are and `scene_drawing` for how they are drawn. Invariant: a
frame depends on the config and its number alone, so any frame may be drawn first, and pictures do not pile
up: besides the textures of one shot only its positions are kept, some hundred bytes a frame.

Shape suffixes: H W rows and columns, 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scene_drawing import ShotPainter
from vidseg_core.datasets.scene_motion import ShotMotion, plan_motion, shot_lengths


class SceneFrame(NamedTuple):
    """One frame and its truth."""

    index: int
    frame_HW3: np.ndarray
    """uint8 RGB."""
    labels_HW: np.ndarray
    """uint8 class ids, an index into `SCENE_CLASSES`; every pixel has one."""


class Scene:
    """A clip that is drawn on demand; keeps the textures of one shot at a time."""

    class_names = SCENE_CLASSES

    def __init__(self, config: SceneConfig) -> None:
        self.config = config
        self._starts = np.cumsum([0, *shot_lengths(config)])
        self._shot = -1
        self._painter: ShotPainter

    def __len__(self) -> int:
        return self.config.frames

    @property
    def cut_frames(self) -> list[int]:
        """The first frame after each cut."""
        return self._starts[1:-1].tolist()

    def activity(self) -> np.ndarray:
        """int64 per frame: how much moves, 0 at rest, about 256 when fast."""
        shots = range(len(self._starts) - 1)
        return np.concatenate([self._motion(shot).activity_T for shot in shots])

    def frame(self, index: int) -> SceneFrame:
        """Draw frame `index`; IndexError outside the clip."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} is not in a scene of {len(self)} frames")
        shot = int(np.searchsorted(self._starts, index, side="right")) - 1
        if shot != self._shot:
            self._painter, self._shot = ShotPainter(self.config, shot, self._motion(shot)), shot
        return SceneFrame(index, *self._painter.draw(index - int(self._starts[shot])))

    def __iter__(self) -> Iterator[SceneFrame]:
        return (self.frame(index) for index in range(len(self)))

    def _motion(self, shot: int) -> ShotMotion:
        return plan_motion(self.config, shot, int(self._starts[shot + 1] - self._starts[shot]))
