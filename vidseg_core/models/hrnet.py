"""HRNetV2-W18 with its own head (Wang et al., PAMI 2021): four resolutions side by side, all of them
classified.

Model: the body is timm's, whose ImageNet weights fit (`--encoder_weights`). Its four maps, enlarged to
stride 4 and concatenated, pass a 1x1 convolution of as many channels, and the classifier. ETC's "HRNet-w18"
(Table V) is by its 3.9 M parameters the small one, v2.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.split import SplitNet
from vidseg_core.models.torchvision_compat import import_torchvision


class HrNet(SplitNet):
    """Body, mixing convolution, classifier."""

    stride, multiple = 4, 32

    def __init__(self, body: str, classes: int) -> None:
        super().__init__()
        import_torchvision()
        import timm

        options = {"features_only": True, "feature_location": "", "out_indices": (1, 2, 3, 4)}
        encoder: Any = timm.create_model(body, pretrained=False, **options)
        self.encoder = encoder
        channels = sum(encoder.feature_info.channels())
        self.mix = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.classify = nn.Conv2d(channels, classes, 1)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat, at stride 4."""
        first, *others = self.encoder(frames_B3HW)
        size = first.shape[2:]
        enlarged = [F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in others]
        return (self.mix(torch.cat([first, *enlarged], dim=1)),)

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task."""
        return self.classify(maps[0])
