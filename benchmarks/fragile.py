"""A net that one clip kills, for `chaos`: the plain one, except that a red picture ends its process."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from vidseg_core.models.registry import build_segmenter

SPEC = "benchmarks.fragile:Fragile"


class Fragile:
    """Dies without a word, as native code does."""

    def __init__(self) -> None:
        self._net = build_segmenter("plain")
        self.class_names, self.stride = self._net.class_names, self._net.stride

    def features(self, frames_B3HW: torch.Tensor) -> Any:
        """The plain net's."""
        red, green, _ = frames_B3HW.mean(dim=(2, 3)).amax(dim=0).tolist()
        if red > 0.8 and green < 0.3:
            os._exit(139)
        return self._net.features(frames_B3HW)

    def head(self, feats: Any) -> torch.Tensor:
        """The plain net's."""
        return self._net.head(feats)


def deadly_clip(frames: int, from_frame: int) -> np.ndarray:
    """frames_THW3: gray, and red from a frame on."""
    clip_THW3 = np.full((frames, 64, 96, 3), 90, np.uint8)
    clip_THW3[from_frame:] = (230, 20, 20)
    return clip_THW3
