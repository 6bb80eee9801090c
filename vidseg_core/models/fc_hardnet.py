"""FC-HarDNet-70 (Chao et al., *HarDNet: A Low Memory Traffic Network*, ICCV 2019), as its authors publish
it.

Model: a harmonic dense block wires layer n to the layers n - 2^i for every power of two that divides n, and
is the wider the more there are; of a block the odd layers and the last are handed on. Five blocks go down to
stride 64 by averaging, four go up again to stride 4, each with the block of the same size beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.split import SplitNet

STEM = (16, 24, 32, 48)
WIDTHS = (64, 96, 160, 224, 320)
"""Channels after each block on the way down."""
GROWTH = (10, 16, 18, 24, 32)
LAYERS = (4, 4, 8, 8, 8)
WIDER = 1.7
"""A layer's width grows by this with every link after its first."""


class FcHarDNet(SplitNet):
    """Down, up, and the classifier."""

    stride, multiple = 4, 64

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(_convolution(3, STEM[0], 3, stride=2), _convolution(STEM[0], STEM[1], 3)),
            *(_convolution(STEM[1], STEM[2], 3, stride=2), _convolution(STEM[2], STEM[3], 3)),
        )
        self.down, self.narrow, channels, skips = nn.ModuleList(), nn.ModuleList(), STEM[3], []
        for growth, layers, width in zip(GROWTH, LAYERS, WIDTHS, strict=True):
            block = HarmonicBlock(channels, growth, layers)
            skips.append(block.channels)
            self.down.append(block)
            self.narrow.append(_convolution(block.channels, width, 1))
            channels = width
        self.merge, self.up = nn.ModuleList(), nn.ModuleList()
        for place in reversed(range(len(LAYERS) - 1)):
            joined = channels + skips[place]
            self.merge.append(_convolution(joined, joined // 2, 1))
            block = HarmonicBlock(joined // 2, GROWTH[place], LAYERS[place])
            self.up.append(block)
            channels = block.channels
        self.classify = nn.Conv2d(channels, classes, 1)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat, at stride 4."""
        here, skips = self.stem(frames_B3HW), []
        for place, (block, narrow) in enumerate(zip(self.down, self.narrow, strict=True)):
            here = F.avg_pool2d(here, 2) if place else here
            skips.append(block(here))
            here = narrow(skips[-1])
        for join, block, skip in zip(self.merge, self.up, reversed(skips[:-1]), strict=True):
            larger = F.interpolate(here, size=skip.shape[2:], mode="bilinear", align_corners=True)
            here = block(join(torch.cat([larger, skip], dim=1)))
        return (here,)

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task."""
        return self.classify(maps[0])


class HarmonicBlock(nn.Module):
    """A harmonic dense block; `channels` is what it gives."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        widths = [inputs, *(_width(number, growth) for number in range(1, layers + 1))]
        self._links = [_links(number) for number in range(1, layers + 1)]
        self._kept = [number for number in range(1, layers + 1) if number % 2 or number == layers]
        self.layers = nn.ModuleList(
            _convolution(sum(widths[link] for link in links), width, 3)
            for links, width in zip(self._links, widths[1:], strict=True)
        )
        self.channels = sum(widths[number] for number in self._kept)

    def forward(self, before: torch.Tensor) -> torch.Tensor:
        maps = [before]
        for layer, links in zip(self.layers, self._links, strict=True):
            maps.append(layer(torch.cat([maps[link] for link in links], dim=1)))
        return torch.cat([maps[number] for number in self._kept], dim=1)


def _links(number: int) -> Sequence[int]:
    """What layer `number` reads; 0 is the block's input."""
    return [number - 2**i for i in range(number.bit_length()) if number % 2**i == 0]


def _width(number: int, growth: int) -> int:
    width = growth * WIDER ** (len(_links(number)) - 1)
    return int(int(width + 1) / 2) * 2


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
