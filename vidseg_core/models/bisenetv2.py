"""BiSeNetV2 (Yu et al., IJCV 2021): a wide shallow branch for detail, a narrow deep one for meaning, and an
aggregation in which each gates the other.

Names of stages and blocks are the paper's (its Table 1 and Figures 4 to 6). Its booster heads are losses of
its training and are not here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.split import SplitNet

WIDE = 128
"""Channels of both branches where they meet."""
HEAD = 1024
EXPANSION = 6


class BiSeNetV2(SplitNet):
    """Detail, semantics, aggregation, head."""

    stride, multiple = 8, 32

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.detail = nn.Sequential(
            *(_convolution(3, 64, stride=2), _convolution(64, 64)),
            *(_convolution(64, 64, stride=2), _convolution(64, 64), _convolution(64, 64)),
            *(_convolution(64, WIDE, stride=2), _convolution(WIDE, WIDE), _convolution(WIDE, WIDE)),
        )
        self.semantic = nn.Sequential(
            _Stem(16),
            *(_Expand(16, 32), _Gather(32)),
            *(_Expand(32, 64), _Gather(64)),
            *(_Expand(64, WIDE), _Gather(WIDE), _Gather(WIDE), _Gather(WIDE)),
            _Context(WIDE),
        )
        self.aggregate = _Aggregate(WIDE)
        self.head = nn.Sequential(_convolution(WIDE, HEAD), nn.Dropout(0.1))
        self.classify = nn.Conv2d(HEAD, classes, 1)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat, at stride 8; the wide convolution of the head is most of what the head costs."""
        return (self.head(self.aggregate(self.detail(frames_B3HW), self.semantic(frames_B3HW))),)

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task."""
        return self.classify(maps[0])


class _Stem(nn.Module):
    """Two ways to halve the map, side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(3, channels, stride=2)
        self.strided = nn.Sequential(
            _convolution(channels, channels // 2, kernel=1), _convolution(channels // 2, channels, stride=2)
        )
        self.fuse = _convolution(2 * channels, channels)

    def forward(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        at2 = self.first(frames_B3HW)
        return self.fuse(torch.cat([self.strided(at2), F.max_pool2d(at2, 3, 2, 1)], dim=1))


class _Gather(nn.Module):
    """Gather-and-expansion layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = EXPANSION * channels
        self.body = nn.Sequential(
            _convolution(channels, channels),
            _convolution(channels, wide, groups=channels),
            _convolution(wide, channels, kernel=1, active=False),
        )

    def forward(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        return F.relu(map_BFhw + self.body(map_BFhw))


class _Expand(nn.Module):
    """Gather-and-expansion layer that halves the map."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        wide = EXPANSION * inputs
        self.body = nn.Sequential(
            _convolution(inputs, inputs),
            _convolution(inputs, wide, stride=2, groups=inputs, active=False),
            _convolution(wide, wide, groups=wide),
            _convolution(wide, outputs, kernel=1, active=False),
        )
        self.shortcut = nn.Sequential(
            _convolution(inputs, inputs, stride=2, groups=inputs, active=False),
            _convolution(inputs, outputs, kernel=1, active=False),
        )

    def forward(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        return F.relu(self.shortcut(map_BFhw) + self.body(map_BFhw))


class _Context(nn.Module):
    """Context embedding: the mean of the whole map, added everywhere. Without batch statistics, which a mean
    has none of in a batch of one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(inplace=True))
        self.mix = _convolution(channels, channels)

    def forward(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        return self.mix(map_BFhw + self.mean(map_BFhw.mean(dim=(2, 3), keepdim=True)))


class _Aggregate(nn.Module):
    """Bilateral guided aggregation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = _separable(channels)
        self.detail_small = nn.Sequential(
            _convolution(channels, channels, stride=2, active=False), nn.AvgPool2d(3, 2, 1)
        )
        self.semantic_large = _convolution(channels, channels, active=False)
        self.semantic = _separable(channels)
        self.mix = _convolution(channels, channels)

    def forward(self, detail: torch.Tensor, semantic: torch.Tensor) -> torch.Tensor:
        size = detail.shape[2:]
        fine = self.detail(detail) * torch.sigmoid(_enlarged(self.semantic_large(semantic), size))
        coarse = self.detail_small(detail) * torch.sigmoid(self.semantic(semantic))
        return self.mix(fine + _enlarged(coarse, size))


def _separable(channels: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(channels, channels, groups=channels, active=False),
        nn.Conv2d(channels, channels, 1, bias=False),
    )


def _enlarged(map_BFhw: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(map_BFhw, size=size, mode="bilinear", align_corners=False)


def _convolution(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if active else []))
