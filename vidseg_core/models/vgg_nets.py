"""Nets on VGG16: FCN-8s and DeepLab-v2, DVRL's first preliminary nets (Table 1).

Sources: FCN, Long et al., CVPR 2015: VGG's dense layers as convolutions, classified at stride 32 and, with
pool4 and pool3, at strides 16 and 8. DeepLab-v2, Chen et al., PAMI 2018: pool4 and pool5 do not stride,
conv5 is dilated, four branches of dilations 6 to 24 are classified and added. What differs: scores are
enlarged by interpolation, not by learned deconvolutions that begin as it, and FCN's frames are not padded by
100 pixels. DeepLab's code pools 3x3 throughout; here the three poolings that halve the map are 2x2, as in the
classifier that the ImageNet weights are of, and the two that do not halve it are 3x3.

Model: VGG's convolutions are torchvision's, whose ImageNet weights fit (`--encoder_weights`).
Legend: B batch, F channels, h w rows and columns of a map.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.split import SplitNet
from vidseg_core.models.torchvision_compat import import_torchvision

TOP, DENSE, BRANCH = 512, 4096, 1024
"""Channels of VGG's last convolution, of FCN's dense layers, of each of DeepLab-v2's branches."""
POOLS = (4, 9, 16, 23, 30)
"""Places of the poolings among VGG16's layers."""
RATES = (6, 12, 18, 24)


class FcnVgg(SplitNet):
    """FCN-8s."""

    stride, multiple, maps = 8, 32, 3

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = _vgg16()
        self.dense = nn.Sequential(
            *(nn.Conv2d(TOP, DENSE, 7, padding=3), nn.ReLU(inplace=True), nn.Dropout2d(0.5)),
            *(nn.Conv2d(DENSE, DENSE, 1), nn.ReLU(inplace=True), nn.Dropout2d(0.5)),
        )
        self.score8, self.score16 = nn.Conv2d(256, classes, 1), nn.Conv2d(TOP, classes, 1)
        self.score32 = nn.Conv2d(DENSE, classes, 1)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat: pool3, pool4 and the dense layers' map."""
        at8 = self.backbone[: POOLS[2] + 1](frames_B3HW)
        at16 = self.backbone[POOLS[2] + 1 : POOLS[3] + 1](at8)
        return at8, at16, self.dense(self.backbone[POOLS[3] + 1 :](at16))

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task: the three classifiers, added at stride 8."""
        at8, at16, at32 = maps
        scores = self.score16(at16) + _as_large(self.score32(at32), at16)
        return self.score8(at8) + _as_large(scores, at8)


class DeepLabV2Vgg(SplitNet):
    """DeepLab-v2's ASPP version."""

    stride, multiple = 8, 8

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = _vgg16()
        for place in POOLS[3:]:
            self.backbone[place] = nn.MaxPool2d(3, stride=1, padding=1)
        for layer in list(self.backbone.children())[POOLS[3] + 1 :]:
            if isinstance(layer, nn.Conv2d):
                layer.dilation = layer.padding = (2, 2)
        self.branches = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(TOP, BRANCH, 3, padding=rate, dilation=rate), nn.ReLU(inplace=True)),
                *(nn.Dropout2d(0.5), nn.Conv2d(BRANCH, BRANCH, 1), nn.ReLU(inplace=True), nn.Dropout2d(0.5)),
            )
            for rate in RATES
        )
        self.classify = nn.Conv2d(len(RATES) * BRANCH, classes, 1)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat: the four branches side by side."""
        top = self.backbone(frames_B3HW)
        return (torch.cat([branch(top) for branch in self.branches], dim=1),)

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task: one convolution over all branches is the sum of one for each."""
        return self.classify(maps[0])


def _vgg16() -> nn.Sequential:
    models: Any = import_torchvision().models
    return models.vgg16(weights=None, init_weights=False).features


def _as_large(map_BFhw: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(map_BFhw, size=like.shape[2:], mode="bilinear", align_corners=False)
