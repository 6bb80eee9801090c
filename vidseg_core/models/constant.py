"""`constant`: class 0 everywhere, at almost no cost. It measures plumbing, and tests use it where N does not
matter.

Shape suffixes: B batch, C classes, H W frame rows and columns.
"""

from __future__ import annotations

from typing import Self

import torch

from vidseg_core.models.digest import digest_state
from vidseg_core.models.geometry import check_frames, detach_size
from vidseg_core.models.protocol import Features, SegmenterError

CLASS_NAMES = ("background", "other")


class ConstantSegmenter:
    """Scores are 1 for class 0 and 0 for the others; features are the zero-cost view of one zero."""

    stride = 1
    trained = False
    note = "The segmenter 'constant' says class 0 everywhere: its masks mean nothing."

    def __init__(self, *, name: str = "constant", class_names: tuple[str, ...] = CLASS_NAMES) -> None:
        if not class_names:
            raise SegmenterError("class_names must name at least one class")
        self.name = name
        self.class_names = class_names
        self.digest = digest_state({}, {"net": "constant", "class_names": list(class_names)})
        self._one_hot = torch.zeros(1, len(class_names), 1, 1)
        self._one_hot[:, 0] = 1.0

    def to(self, device: str | torch.device) -> Self:
        """Move the one-hot scores; returns itself."""
        self._one_hot = self._one_hot.to(device)
        return self

    def features(self, frames_B3HW: torch.Tensor) -> Features:
        """A zero map of the frame's size that occupies four bytes."""
        check_frames(frames_B3HW)
        size = (frames_B3HW.shape[0], 1, *frames_B3HW.shape[2:])
        return frames_B3HW.new_zeros(()).expand(size)

    def head(self, feats: Features) -> torch.Tensor:
        """Scores as a view that occupies C floats; do not write to it."""
        maps, size = detach_size(feats, 1, self.stride)
        return self._one_hot.expand(maps[0].shape[0], -1, *size)
