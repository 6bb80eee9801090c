"""What flow nets have in common: warping, cost volumes, layers.

Convention (as in `propagation.flow`): a flow goes from the current picture to the key, in pixels of the
picture it belongs to; `backward_warp` reads the key there.

Legend: B pairs, C channels, h, w rows and columns; 2 = (u, v) horizontal and vertical; 3 = RGB, 0..1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import nn


def places_of(flow_B2hw: torch.Tensor) -> torch.Tensor:
    """place_B2hw: the coordinates (x, y) in the key's picture that each pixel's flow points to."""
    height, width = flow_B2hw.shape[-2:]
    y_h = torch.arange(height, dtype=flow_B2hw.dtype, device=flow_B2hw.device)
    x_w = torch.arange(width, dtype=flow_B2hw.dtype, device=flow_B2hw.device)
    grid_2hw = torch.stack([x_w[None, :].expand(height, width), y_h[:, None].expand(height, width)])
    return grid_2hw + flow_B2hw


def backward_warp(maps_BChw: torch.Tensor, flow_B2hw: torch.Tensor, padding: str = "border") -> torch.Tensor:
    """The key's maps as seen from the current frame: bilinear, differentiable in both (DFF; DVRL 3.1).

    The same sampling as `propagation.warp.warp_maps`; reading outside repeats the border, or with
    `padding="zeros"` gives zeros.
    """
    height, width = maps_BChw.shape[-2:]
    place_B2hw = places_of(flow_B2hw)
    size_2 = torch.tensor([width, height], dtype=place_B2hw.dtype, device=place_B2hw.device)
    grid_Bhw2 = (place_B2hw.permute(0, 2, 3, 1) * 2.0 + 1.0) / size_2 - 1.0
    return functional.grid_sample(
        maps_BChw, grid_Bhw2, mode="bilinear", padding_mode=padding, align_corners=False
    )


def cost_volume(current_BChw: torch.Tensor, key_BChw: torch.Tensor, radius: int) -> torch.Tensor:
    """cost_BDhw, D = (2 radius + 1)^2: mean product of features at each displacement, zero outside."""
    height, width = current_BChw.shape[-2:]
    padded = functional.pad(key_BChw, (radius,) * 4)
    side = 2 * radius + 1
    share_BChw = current_BChw / current_BChw.shape[1]
    costs = [
        (share_BChw * padded[..., dy : dy + height, dx : dx + width]).sum(1)
        for dy in range(side)
        for dx in range(side)
    ]
    return torch.stack(costs, 1)


def grow_flow(flow_B2hw: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The flow at another resolution (bilinear), its vectors in pixels of that resolution."""
    rows, columns = flow_B2hw.shape[-2:]
    if (rows, columns) == (height, width):
        return flow_B2hw
    scale_2 = torch.tensor([width / columns, height / rows], dtype=flow_B2hw.dtype, device=flow_B2hw.device)
    grown = functional.interpolate(flow_B2hw, (height, width), mode="bilinear", align_corners=False)
    return grown * scale_2[None, :, None, None]


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution and leaky ReLU (0.1), size kept but for the stride, as in all FlowNets."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.LeakyReLU(0.1, inplace=True)
    )


class ScaleHead(nn.Module):
    """DFF's scale field from a net's finest maps: one 1x1 convolution that says 1 everywhere until it is
    trained (DFF section 3). `level`: what it multiplies; part of the names of its weights."""

    def __init__(self, inputs: int, channels: int, level: str) -> None:
        super().__init__()
        self.channels, self.level = channels, level
        self.by = nn.ModuleDict({level: nn.Conv2d(inputs, channels, 1)})
        layer = self.by[level]
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        nn.init.zeros_(layer.weight)
        nn.init.ones_(layer.bias)

    def forward(self, maps_BChw: torch.Tensor) -> torch.Tensor:
        return self.by[self.level](maps_BChw)
