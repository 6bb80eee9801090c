"""`tiny:<width>`: a small net that trains from nothing in minutes and runs on one CPU core.

Model: an encoder down to stride 32, context from average pooling over three windows there, and a decoder that
climbs back to stride 4 by adding skips. Full convolutions stand where maps are large and thin, since there a
CPU is bound by memory; inverted residuals (MobileNetV2's block with a thin expansion) where they are deep.
Split: N_feat ends with the stride-4 map, and its lower part with the encoder's stride-8 map; N_task doubles
the former, refines it by one depthwise convolution and classifies, so that eyelids and lips, a few pixels
high, have scores at stride 2.

Shape suffixes: B batch, C classes, F feature channels, h w rows and columns of a map.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.levels import Level, LevelNet, Maps
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.request import ModelRequest, Recipe, assemble
from vidseg_core.models.split import SplitNet, SplitSegmenter

WIDTHS = (8, 64)
"""Smallest and largest width: channels at stride 2; deeper maps have 2, 3, 6 and 8 times as many."""
DEFAULT_CLASSES = 5
POOLS = (5, 9, 17)
"""Windows of the context, in pixels of the stride-32 map."""


class TinyNet(LevelNet):
    """Encoder, context and decoder; doubling, refinement and classifier."""

    def __init__(self, width: int, classes: int, *, reduce: int = 1) -> None:
        """`reduce`: frames are averaged over squares of so many pixels first; no weight depends on it."""
        super().__init__()
        self.reduce, self.stride, self.multiple = reduce, 4 * reduce, 32 * reduce
        self.low_count, self.low_stride = 2, self.stride
        wide = [width, 2 * width, 3 * width, 6 * width, 8 * width]
        self.stem = _convolution(3, wide[0], kernel=3, stride=2)
        self.stage4 = nn.Sequential(_convolution(wide[0], wide[1], kernel=3, stride=2), _Residual(wide[1]))
        self.stage8 = nn.Sequential(_convolution(wide[1], wide[2], kernel=3, stride=2), *_blocks(wide[2], 2))
        self.stage16 = nn.Sequential(_Block(wide[2], wide[3], stride=2), *_blocks(wide[3], 3))
        self.stage32 = nn.Sequential(_Block(wide[3], wide[4], stride=2), *_blocks(wide[4], 2))
        self.context = _Context(wide[4])
        self.up16 = _Climb(wide[4], wide[3], _Block(wide[3], wide[3], expansion=2))
        self.up8 = _Climb(wide[3], wide[2], _Block(wide[2], wide[2], expansion=2))
        self.up4 = _Climb(wide[2], wide[1], _convolution(wide[1], wide[1], kernel=3))
        self.refine = _convolution(wide[1], wide[1], kernel=3, groups=wide[1])
        self.classify = nn.Conv2d(wide[1], classes, 1)

    def levels(self) -> tuple[Level, ...]:
        """Maps at strides 4, 8, 16 and 32."""
        return self._to4, self.stage8, self.stage16, self._to32

    def _to4(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        if self.reduce > 1:
            frames_B3HW = F.avg_pool2d(frames_B3HW, self.reduce)
        return self.stage4(self.stem(frames_B3HW))

    def _to32(self, at16: torch.Tensor) -> torch.Tensor:
        return self.context(self.stage32(at16))

    def climb(self, maps: Maps) -> Maps:
        """From the coarsest map that is there: (B, F, h, w) at `stride`."""
        ups = (self.up4, self.up8, self.up16)
        coarse = maps[-1] if len(maps) > len(ups) else None
        for up, fine in reversed(list(zip(ups, maps, strict=False))):
            coarse = up(coarse, fine)
        assert coarse is not None
        return (coarse,)

    def decode(self, maps: Maps) -> torch.Tensor:
        """N_task: scores at half of `stride`."""
        doubled = F.interpolate(maps[0], scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.classify(self.refine(doubled))


def _convolution(
    inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if active else []))


class _Residual(nn.Module):
    """Two full 3x3 convolutions, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(channels, channels, kernel=3),
            _convolution(channels, channels, kernel=3, active=False),
        )

    def forward(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        return F.relu(map_BFhw + self.body(map_BFhw))


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [_Block(channels, channels) for _ in range(count)]


class _Block(nn.Module):
    """Inverted residual: widen, depthwise 3x3, narrow; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, expansion: int = 3) -> None:
        super().__init__()
        inner = inputs * expansion
        self.body = nn.Sequential(
            _convolution(inputs, inner),
            _convolution(inner, inner, kernel=3, stride=stride, groups=inner),
            _convolution(inner, outputs, active=False),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        return map_BFhw + self.body(map_BFhw) if self.residual else self.body(map_BFhw)


class _Context(nn.Module):
    """What is around each place: averages over growing windows, mixed by one 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = _convolution((1 + len(POOLS)) * channels, channels)
        self.pools = nn.ModuleList(
            nn.AvgPool2d(size, stride=1, padding=size // 2, count_include_pad=False) for size in POOLS
        )

    def forward(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        return self.mix(torch.cat([map_BFhw, *(pool(map_BFhw) for pool in self.pools)], dim=1))


class _Climb(nn.Module):
    """One octave up: narrow, double, add the skip, mix; from the skip alone where nothing is coarser."""

    def __init__(self, inputs: int, outputs: int, mix: nn.Module) -> None:
        super().__init__()
        self.narrow = _convolution(inputs, outputs, active=False)
        self.skip = _convolution(outputs, outputs, active=False)
        self.mix = mix

    def forward(self, coarse: torch.Tensor | None, fine: torch.Tensor) -> torch.Tensor:
        if coarse is None:
            return self.mix(F.relu(self.skip(fine)))
        doubled = F.interpolate(
            self.narrow(coarse), size=fine.shape[2:], mode="bilinear", align_corners=False
        )
        return self.mix(F.relu(doubled + self.skip(fine)))


def build_tiny(request: ModelRequest) -> SplitSegmenter:
    """The segmenter for `tiny:<width>`, on the CPU."""
    low, high = WIDTHS
    if not request.body.isascii() or not request.body.isdigit() or not low <= int(request.body) <= high:
        raise SegmenterError(
            f"segmenter {request.spec!r} should read tiny:<width>, width from {low} to {high}"
        )
    return assemble(replace(request, channels_last=True), tiny_recipe(int(request.body)))


def tiny_recipe(width: int, default_classes: int = DEFAULT_CLASSES, *, reduce: int = 1) -> Recipe:
    """How `assemble` builds and reads a net of this width."""

    def split(net: nn.Module) -> SplitNet:
        assert isinstance(net, TinyNet)
        return net

    return Recipe(
        build=lambda classes: TinyNet(width, classes, reduce=reduce),
        split=split,
        head_key="classify.weight",
        default_classes=default_classes,
    )
