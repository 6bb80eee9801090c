"""`plain`: a colour-prototype net for the generated scenes. It needs no file and no training, and costs
little.

Model: N_feat blurs the frame, pools it, and maps each pixel to its chromaticity, which shading hardly
changes; N_task is a 1x1 convolution. With prototypes m_c, the nearest prototype is the largest 2 m_c . f -
|m_c|^2, which is linear in f, so the weights of that convolution are known without fitting. On real video it
means nothing.

Shape suffixes: B batch, C classes, F feature channels, h w pooled rows and columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.classes import SCENE_CLASSES, SCENE_RGB
from vidseg_core.models.split import SplitNet, SplitOptions, SplitSegmenter

NOTE = (
    "The segmenter 'plain' knows the colours of the generated scenes only: elsewhere its masks mean nothing."
)
SHARPNESS = 60.0
"""Scores are multiplied by this; their argmax does not depend on it, their softmax does."""


class PlainNet(SplitNet):
    """Blur and pool by 2, chromaticity, 1x1 classifier."""

    stride = 2
    multiple = 2
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        binomial = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8.0
        kernel = (binomial[:, None] * binomial[None, :]).expand(3, 1, 4, 4)
        self.blur = nn.Conv2d(3, 3, 4, stride=2, groups=3, bias=False)
        self.blur.weight = nn.Parameter(kernel.clone())
        self.classify = nn.Conv2d(3, len(SCENE_CLASSES), 1)
        prototypes_CF = chromaticity(torch.tensor(SCENE_RGB).float().view(-1, 3, 1, 1) / 255.0)[:, :, 0, 0]
        self.classify.weight = nn.Parameter(SHARPNESS * 2.0 * prototypes_CF[:, :, None, None])
        self.classify.bias = nn.Parameter(-SHARPNESS * prototypes_CF.square().sum(dim=1))

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat: blurred chromaticity at half size."""
        return (chromaticity(self.blur(F.pad(frames_B3HW, (1, 1, 1, 1), mode="replicate"))),)

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task: nearest prototype as a linear layer."""
        return self.classify(maps[0])


def chromaticity(rgb_B3hw: torch.Tensor) -> torch.Tensor:
    """(R, G, B) / (R + G + B), with a floor under the sum so that black is neutral; the shape stays."""
    floor = 0.05
    return (rgb_B3hw + floor / 3) / (rgb_B3hw.sum(dim=1, keepdim=True) + floor)


def build_plain(*, name: str = "plain", precision: str = "fp32") -> SplitSegmenter:
    """The segmenter `plain`, on the CPU."""
    options = SplitOptions(
        name=name,
        class_names=SCENE_CLASSES,
        trained=False,
        note=NOTE,
        architecture="plain-1",
        precision=precision,
    )
    return SplitSegmenter(PlainNet(), options)
