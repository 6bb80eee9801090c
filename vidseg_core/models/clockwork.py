"""The adaptive clock of Clockwork (Shelhamer, Rakelly, Hoffman, Darrell 2016): a score layer on low-level
features.

Model: the deep levels of a net need not run while nothing changes. The clock looks at the labels that a score
layer (the authors' `score_pool4`, here a 1x1 convolution) makes of the lower part of N, and ticks where they
differ on more than a share of the places from those of the frame on which the deep levels ran last. The layer
is trained for it, N is not.

Legend: B frames, L low-level channels, C classes; y, x size of the low-level map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vidseg_core.models.propagation_file import check_belongs, read_net
from vidseg_core.models.protocol import Features, parts_of


@dataclass(frozen=True, kw_only=True)
class ClockFacts:
    """What the score layer belongs to, and its size; kept in its file."""

    segmenter: str
    """Digest of N."""
    low_place: int
    """Which of the maps of N's lower part the layer reads."""
    low_channels: int
    classes: int


class ClockNet(nn.Module):
    """The score layer."""

    def __init__(self, facts: ClockFacts) -> None:
        super().__init__()
        self.facts = facts
        self.score = nn.Conv2d(facts.low_channels, facts.classes, 1)

    def forward(self, low: Features) -> torch.Tensor:
        """Scores of the low-level features of B frames: (B, C, y, x)."""
        return self.score(self.low_of(low).float())

    @torch.inference_mode()
    def changed(self, key_low: Features, low: Features) -> float:
        """The share of places, 0..1, whose class differs between a key and a frame, by their low features."""
        key_yx, now_yx = (self._classes(maps) for maps in (key_low, low))
        return float((key_yx != now_yx).float().mean())

    def _classes(self, low: Features) -> torch.Tensor:
        low_Lyx = self.low_of(low)
        if self.score.weight.device != low_Lyx.device:
            self.to(low_Lyx.device)
        return self.score(low_Lyx[None].float()).argmax(1)

    def low_of(self, low: Features) -> torch.Tensor:
        """The map that is read, of one frame or of several."""
        maps = (low,) if isinstance(low, torch.Tensor) else tuple(low)
        return maps[self.facts.low_place]

    def check(self, segmenter: Any, file: str) -> None:
        """`SegmenterError` unless `segmenter` is the one that the layer of `file` was trained with."""
        parts_of(segmenter, "low_change")
        check_belongs(segmenter, self.facts.segmenter, file)


def new_clock(segmenter: Any, *, seed: int = 0, device: str = "cpu") -> ClockNet:
    """An untrained score layer for this segmenter, which is on `device`."""
    parts = parts_of(segmenter, "clockwork")
    with torch.inference_mode():
        low = parts.low(torch.zeros(1, 3, 256, 256, device=device))
    lows = [low] if isinstance(low, torch.Tensor) else list(low)
    facts = ClockFacts(
        segmenter=parts.digest,
        low_place=len(lows) - 1,
        low_channels=lows[-1].shape[1],
        classes=len(parts.class_names),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ClockNet(facts)


def read_clock(path: str) -> ClockNet:
    """The score layer in a file of train-propagation, frozen; `SegmenterError` for any other file."""
    return read_net("clockwork", path, lambda facts: ClockNet(ClockFacts(**facts)))
