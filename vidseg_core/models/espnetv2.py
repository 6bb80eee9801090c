"""ESPNetv2 for segmentation, s = 2 (Mehta et al., CVPR 2019), as its authors publish it.

Model: an EESP unit narrows the map by a grouped 1x1 convolution, looks at it with four depthwise dilated 3x3
convolutions whose results are summed from the smallest reach to the largest, and puts them together with a
grouped 1x1 convolution. Where a level begins, a strided unit and an average stand side by side, and the
frame itself, made as small, is added. Scores climb from level 3 to level 1 in as many channels as there are
classes. The authors' second, auxiliary output is a loss of theirs and is not here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.split import SplitNet

CHANNELS = (32, 128, 256, 512)
"""Of levels 1 to 4, at strides 2 to 16."""
BRANCHES = 4
FIRST_REACH = {2: 13, 3: 11, 4: 9}
REACH = {3: 9, 4: 7}
"""Largest reach of a unit's branches by level, pixels: where the level begins, and after it."""
REPEATS = {3: 3, 4: 7}
POOLS = 4


class EspNetV2(SplitNet):
    """Four levels, pyramid, climb, classifier."""

    stride, multiple = 2, 64

    def __init__(self, classes: int) -> None:
        super().__init__()
        one, two, three, four = CHANNELS
        self.level1 = _convolution(3, one, 3, stride=2)
        self.down2 = _Down(one, two, FIRST_REACH[2])
        self.down3, self.down4 = _Down(two, three, FIRST_REACH[3]), _Down(three, four, FIRST_REACH[4])
        self.level3 = nn.Sequential(*(Eesp(three, three, REACH[3]) for _ in range(REPEATS[3])))
        self.level4 = nn.Sequential(*(Eesp(four, four, REACH[4]) for _ in range(REPEATS[4])))
        self.narrow4 = _convolution(four, three, 1)
        self.pyramid = nn.Sequential(Eesp(2 * three, three, REACH[4]), _Pyramid(three))
        self.score3 = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(three, classes, 1, bias=False))
        self.active3 = _Active(classes)
        self.mix2 = _convolution(two + classes, classes, 1)
        self.drop = nn.Dropout2d(0.2)
        self.classify = nn.Conv2d(one + classes, classes, 1, bias=False)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat, at stride 2."""
        at2 = self.level1(frames_B3HW)
        at4 = self.down2(at2, frames_B3HW)
        at8 = self.level3(self.down3(at4, frames_B3HW))
        at16 = self.level4(self.down4(at8, frames_B3HW))
        at8 = self.pyramid(torch.cat([at8, _twice(self.narrow4(at16))], dim=1))
        at4 = self.mix2(torch.cat([at4, _twice(self.active3(self.score3(at8)))], dim=1))
        return (torch.cat([at2, _twice(at4)], dim=1),)

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task."""
        return self.classify(self.drop(maps[0]))


class Eesp(nn.Module):
    """An EESP unit: residual where it may be, or strided, and then without its last activation."""

    def __init__(self, inputs: int, outputs: int, reach: int, stride: int = 1) -> None:
        super().__init__()
        narrow = outputs // BRANCHES
        sizes = sorted(size if size <= reach else 3 for size in (3, 5, 7, 9))
        self.narrow = _convolution(inputs, narrow, 1, groups=BRANCHES)
        self.look = nn.ModuleList(
            nn.Conv2d(narrow, narrow, 3, stride, rate, rate, groups=narrow, bias=False)
            for rate in ((size - 1) // 2 for size in sizes)
        )
        self.merge = nn.Sequential(
            _Active(outputs),
            nn.Conv2d(outputs, outputs, 1, groups=BRANCHES, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs
        self.active = nn.PReLU(outputs) if stride == 1 else nn.Identity()

    def forward(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        narrow, seen = self.narrow(map_BFhw), []
        for look in self.look:
            seen.append(look(narrow) + seen[-1] if seen else look(narrow))
        merged = self.merge(torch.cat(seen, dim=1))
        return self.active(merged + map_BFhw if self.residual else merged)


class _Down(nn.Module):
    """A level's beginning: an average and a strided unit side by side, and the small frame added."""

    def __init__(self, inputs: int, outputs: int, reach: int) -> None:
        super().__init__()
        self.unit = Eesp(inputs, outputs - inputs, reach, stride=2)
        self.frame = nn.Sequential(
            _convolution(3, 3, 3), nn.Conv2d(3, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.active = nn.PReLU(outputs)

    def forward(self, map_BFhw: torch.Tensor, frames_B3HW: torch.Tensor) -> torch.Tensor:
        both = torch.cat([_half(map_BFhw), self.unit(map_BFhw)], dim=1)
        while frames_B3HW.shape[2] > both.shape[2]:
            frames_B3HW = _half(frames_B3HW)
        return self.active(both + self.frame(frames_B3HW))


class _Pyramid(nn.Module):
    """The map beside what a depthwise convolution sees in it at half, quarter, ... of its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.look = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False) for _ in range(POOLS)
        )
        self.mix = _convolution((1 + POOLS) * channels, channels, 1)

    def forward(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        found, small = [map_BFhw], map_BFhw
        for look in self.look:
            small = _half(small)
            found.append(
                F.interpolate(look(small), size=map_BFhw.shape[2:], mode="bilinear", align_corners=True)
            )
        return self.mix(torch.cat(found, dim=1))


class _Active(nn.Sequential):
    """Batch norm and PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.BatchNorm2d(channels), nn.PReLU(channels))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, *_Active(outputs))


def _half(map_BFhw: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(map_BFhw, 3, stride=2, padding=1)


def _twice(map_BFhw: torch.Tensor) -> torch.Tensor:
    return F.interpolate(map_BFhw, scale_factor=2.0, mode="bilinear", align_corners=True)
