"""The shell of segmenters that cannot be split: their features are their scores.

Model: `features(frames)` runs the net to the end and `head` hands its argument on, so that the levels
`features` and `scores` of propagation are one and the same. Invariant: `head(features(x))` are the scores, at
the frame's size.

Shape suffixes: B batch, C classes, H W the frame's rows and columns, 3 = RGB.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from vidseg_core.models.geometry import check_frames, detach_size
from vidseg_core.models.protocol import Features


class WholeSegmenter(ABC):
    """Subclasses set the other attributes of `Segmenter`, write `scores` and `to`."""

    stride = 1

    @abstractmethod
    def scores(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        """float32 scores_BCHW of checked frames, of any size."""

    def features(self, frames_B3HW: torch.Tensor) -> Features:
        """The scores; see the module docstring."""
        check_frames(frames_B3HW)
        return self.scores(frames_B3HW)

    def head(self, feats: Features) -> torch.Tensor:
        """`feats`, which are scores already."""
        maps, _ = detach_size(feats, 1, self.stride)
        return maps[0].float()
