"""SpyNet: coarse to fine on picture pyramids, one small net for each level (Ranjan and Black 2017).

Model: at each level the key's picture is warped by the flow so far (twice the coarser one), and five 7x7
convolutions on current picture, warped key and flow say what is to be added. 1.44 million parameters at six
levels.

Legend: B pairs, h, w picture size (multiples of 32); 2 = (u, v) in pixels; 3 = RGB, 0..1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import nn

from vidseg_core.models.flow.layers import backward_warp, grow_flow

LEVELS = 6
SMALLEST = 32
"""Pixels: published weights of way `sized` take no more halvings than bring a picture down to it."""
MEAN_RGB, STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _level() -> nn.Sequential:
    sizes = (8, 32, 64, 32, 16, 2)
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Conv2d(inputs, outputs, 7, padding=3), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class SpyNet(nn.Module):
    """(current, key) -> flow, both sides multiples of 32."""

    multiple = 32
    smallest = 32
    ways = ("sized", "aligned")
    """Of reading pictures, for published weights (see `published`)."""
    way = ""
    """Ours: all levels, and flows grow from pixel to pixel."""
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(_level() for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor(MEAN_RGB)[None, :, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD_RGB)[None, :, None, None], persistent=False)

    def forward(self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor) -> torch.Tensor:
        """flow_B2hw in pixels."""
        return self.levels(current_B3hw, key_B3hw)[-1]

    def levels(self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor) -> list[torch.Tensor]:
        """Flows at 1/32 to full size, each in its own pixels."""
        pyramid = [((current_B3hw - self.mean) / self.std, (key_B3hw - self.mean) / self.std)]
        for _ in range(self._levels(*current_B3hw.shape[-2:]) - 1):
            pyramid.append(tuple(functional.avg_pool2d(p, 2) for p in pyramid[-1]))  # type: ignore[arg-type]
        coarsest = pyramid[-1][0]
        flow_B2hw = coarsest.new_zeros(len(coarsest), 2, *coarsest.shape[-2:])
        flows = []
        for net, (current, key) in zip(self.nets, reversed(pyramid), strict=False):
            flow_B2hw = self._grown(flow_B2hw, *current.shape[-2:])
            seen = backward_warp(key, flow_B2hw)
            flow_B2hw = flow_B2hw + net(torch.cat([current, seen, flow_B2hw], 1))
            flows.append(flow_B2hw)
        return flows

    def _levels(self, height: int, width: int) -> int:
        if self.way != "sized":
            return LEVELS
        halvings = (max(height, width) - 1).bit_length() - SMALLEST.bit_length() + 1
        return 1 + min(max(halvings, 0), LEVELS - 1)

    def _grown(self, flow_B2hw: torch.Tensor, height: int, width: int) -> torch.Tensor:
        if not self.way or flow_B2hw.shape[-1] == width:
            return grow_flow(flow_B2hw, height, width)
        grown = functional.interpolate(flow_B2hw, (height, width), mode="bilinear", align_corners=True)
        return 2.0 * grown
