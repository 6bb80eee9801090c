"""Nets on an encoder whose last stages are dilated instead of strided: PSPNet, DeepLab-v2, DeepLab-Fast.

Sources: PSPNet, Zhao et al., CVPR 2017: averages over 1, 2, 3 and 6 bins a side beside the last map, and a
3x3 convolution over all of it; maps at stride 8, all stages. Widths of the compact ones (128) are those that
give ETC's counts (Table V). DeepLab-v2, Chen et al., PAMI 2018: four dilated 3x3 classifiers, added.
DeepLab-Fast is DVSNet's (4.1) "modified version of DeepLab-v2", described by its authors' code alone: stride
16, dilations that change from block to block, and a sum of four branches of 256 channels.

Model: encoders are those of segmentation-models-pytorch, so weights of image classifiers fit
(`--encoder_weights`), and with a ResNet the nets have parts. The auxiliary classifiers that the originals
have during training are not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vidseg_core.models.torchvision_compat import import_torchvision

BINS = (1, 2, 3, 6)
WIDE_ENCODER, WIDE, NARROW = 2048, 512, 128
"""Channels of the pyramid's branches: wide on encoders with so many."""
RATES = (6, 12, 18, 24)
"""Dilations of DeepLab-v2's classifiers (its Large version)."""
FAST_RATES = (6, 12, 18)
FAST_CHANNELS = 256
FAST_LAYER4 = (4, 8, 16)
"""Dilations of the blocks of ResNet's last stage in DeepLab-Fast."""


class OnEncoder(nn.Module):
    """Three parts in a row; `SmpNet` runs them."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, segmentation_head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.segmentation_head = encoder, decoder, segmentation_head


def pspnet(encoder: str, classes: int) -> OnEncoder:
    """PSPNet at stride 8."""
    dilated = _encoder(encoder, stride=8)
    channels = int(dilated.out_channels[-1])
    inner = WIDE if channels >= WIDE_ENCODER else NARROW
    return OnEncoder(dilated, PyramidPooling(channels, inner), nn.Conv2d(inner, classes, 1))


def deeplabv2(classes: int) -> OnEncoder:
    """DeepLab-v2 on ResNet-101 at stride 8."""
    encoder = _encoder("resnet101", stride=8)
    head = Added([_dilated(int(encoder.out_channels[-1]), classes, rate) for rate in RATES])
    return OnEncoder(encoder, LastMap(), head)


def deeplab_fast(classes: int) -> OnEncoder:
    """DeepLab-Fast on ResNet-101 at stride 16."""
    encoder = _encoder("resnet101", stride=16)
    for number, block in enumerate(encoder.layer3):
        _spread(block, 1 if number == 0 else 4 if number % 3 == 1 else 2)
    for block, dilation in zip(encoder.layer4, FAST_LAYER4, strict=True):
        _spread(block, dilation)
    return OnEncoder(
        encoder, FastDecoder(int(encoder.out_channels[-1])), nn.Conv2d(FAST_CHANNELS, classes, 1, bias=False)
    )


def _encoder(name: str, *, stride: int) -> Any:
    import_torchvision()
    from segmentation_models_pytorch.encoders import get_encoder

    return get_encoder(name, in_channels=3, depth=5, weights=None, output_stride=stride)


def _spread(block: Any, dilation: int) -> None:
    """Let a bottleneck's 3x3 convolution reach so far."""
    block.conv2.dilation = block.conv2.padding = (dilation, dilation)


def _dilated(inputs: int, outputs: int, rate: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate)


class LastMap(nn.Module):
    """A decoder that hands on the encoder's last map."""

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        return maps[-1]


class Added(nn.Module):
    """Several layers on the same map, added."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        first, *others = self.branches
        total = first(map_BFhw)
        for branch in others:
            total = total + branch(map_BFhw)
        return total


class PyramidPooling(nn.Module):
    """PSPNet's decoder."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        from segmentation_models_pytorch.decoders.pspnet.decoder import PSPBlock

        self.blocks = nn.ModuleList(PSPBlock(channels, inner, bins) for bins in BINS)
        self.mix = nn.Sequential(
            nn.Conv2d(channels + len(BINS) * inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        around = [block(maps[-1]) for block in self.blocks]
        return self.mix(torch.cat([maps[-1], *around], dim=1))


class FastDecoder(nn.Module):
    """DeepLab-Fast's four branches, added, and a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolutions = [_dilated(channels, FAST_CHANNELS, rate) for rate in FAST_RATES]
        convolutions.append(nn.Conv2d(channels, FAST_CHANNELS, 1))
        self.branches = Added([nn.Sequential(one, nn.BatchNorm2d(FAST_CHANNELS)) for one in convolutions])
        self.mix = nn.Sequential(
            nn.Conv2d(FAST_CHANNELS, FAST_CHANNELS, 1, bias=False), nn.BatchNorm2d(FAST_CHANNELS)
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.mix(self.branches(maps[-1]))
