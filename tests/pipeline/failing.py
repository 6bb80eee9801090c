"""Plug-ins for tests: nets that fail on some pictures.

A picture is *bad* when its middle is bright in the red channel only; see `bad_clip`.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from tests.pipeline.slow import SlowPlain


def bad_clip(frames: int, from_frame: int) -> np.ndarray:
    """frames_THW3: gray, and red from a frame on."""
    clip = np.full((frames, 48, 64, 3), 90, np.uint8)
    clip[:, 8:24, 8:24] = 140
    clip[from_frame:] = (230, 20, 20)
    return clip


def is_bad(frames_B3HW: torch.Tensor) -> torch.Tensor:
    """bool [B]."""
    middle_B3 = frames_B3HW[:, :, 20:28, 28:36].mean(dim=(2, 3))
    return (middle_B3[:, 0] > 0.7) & (middle_B3[:, 1] < 0.4)


class NanOnRed(SlowPlain):
    """Scores that are no numbers for bad pictures; a picture of zeros gets them too."""

    delay_s = 0.0

    def features(self, frames_B3HW: torch.Tensor) -> Any:
        """The plain net's, with the verdict beside."""
        return self._net.features(frames_B3HW), is_bad(frames_B3HW) | (frames_B3HW.amax(dim=(1, 2, 3)) == 0)

    def head(self, feats: Any) -> torch.Tensor:
        """The plain net's, or NaN."""
        scores_BCHW = self._net.head(feats[0]).clone()
        scores_BCHW[feats[1]] = torch.nan
        return scores_BCHW


class RaisesOnRed(SlowPlain):
    """Raises for a batch that holds a bad picture."""

    delay_s = 0.0

    def features(self, frames_B3HW: torch.Tensor) -> Any:
        """The plain net's."""
        if bool(is_bad(frames_B3HW).any()):
            raise KeyError("no such colour")
        return self._net.features(frames_B3HW)


class WantsMemoryOnRed(SlowPlain):
    """Finds no memory for a bad picture."""

    delay_s = 0.0

    def features(self, frames_B3HW: torch.Tensor) -> Any:
        """The plain net's."""
        if bool(is_bad(frames_B3HW).any()):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self._net.features(frames_B3HW)


class Died(BaseException):
    """The process is gone, as far as a test in one process can show it."""


class DiesOnRed(SlowPlain):
    """Takes its process along for a batch that holds a bad picture."""

    delay_s = 0.0

    def features(self, frames_B3HW: torch.Tensor) -> Any:
        """The plain net's."""
        if bool(is_bad(frames_B3HW).any()):
            self.die()
        return self._net.features(frames_B3HW)

    def die(self) -> None:
        """As a test sees it."""
        raise Died


class CrashesOnRed(DiesOnRed):
    """The same, and it is meant."""

    def die(self) -> None:
        """No word, no cleaning up."""
        os._exit(139)


class LeavesOnRed(DiesOnRed):
    """A net that calls `sys.exit` for a bad picture."""

    def die(self) -> None:
        """Politely."""
        raise SystemExit(3)
