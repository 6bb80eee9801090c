"""FlowNetS and its slim form FlowNet2-s, the flow net of DVSNet (4.1) and DVRL (3.1, 4.2).

Model (FlowNet, Dosovitskiy et al. 2015, section 3): both pictures are stacked to six channels; ten
convolutions halve the size six times, down to `conv6` at 1/64; a refinement part goes back up to 1/4, and at
each size joins the encoder's maps with the flow so far. FlowNet2-s (Ilg et al. 2017, section 6) is the same
with 3/8 of the channels. Flows inside are in units of `SCALE` pixels of the full picture, as in FlowNet 2.0.

The maps after its fourth to sixth convolution (`encode`) say what two pictures have to do with each other.
The decision net of DVSNet (3.4 and 4.4, Table 2) and the policy of DVRL (4.2) read those of `conv6` as the
deviation between a frame and its key: 1024 channels in FlowNetS, 384 in FlowNet2-s.

Legend: B pairs, C channels, h, w picture size (multiples of 64); 2 = (u, v) in pixels; 3 = RGB, 0..1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as functional
from torch import nn

from vidseg_core.models.flow.layers import ScaleHead, conv

SCALE = 20.0
"""Pixels per unit of flow inside the net."""
CHAIRS_MEAN_RGB = (0.411, 0.432, 0.45)
"""What FlowNetPytorch takes away from red, green and blue. They are the means of Flying Chairs the other way
round (red has .450): its weights were trained so, and its inference does so still."""


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.1, inplace=True))


def _predict(inputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, 2, 3, padding=1)


class FlowNetS(nn.Module):
    """(current, key) -> flow, both sides multiples of 64. `width`: channels, as a share of FlowNetS's."""

    multiple = 64
    smallest = 64
    ways = ("pair", "fixed", "stored")
    """Of reading pictures, for published weights (see `published`)."""
    way = ""
    """Ours: the mean of each picture is taken away, colour by colour."""
    way_stored: torch.Tensor
    """float32 [6], with weights of that way: means of the first and the second picture, red first."""
    scale: ScaleHead | None

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.register_module("scale", None)
        c1, c2, c3, c4, c5, c6 = (round(channels * width) for channels in (64, 128, 256, 512, 512, 1024))
        self.conv6_channels = c6
        self.map_channels = {"conv4": c4, "conv5": c5, "conv6": c6}
        self.conv1 = conv(6, c1, 7, 2)
        self.conv2 = conv(c1, c2, 5, 2)
        self.conv3 = nn.Sequential(conv(c2, c3, 5, 2), conv(c3, c3))
        self.conv4 = nn.Sequential(conv(c3, c4, 3, 2), conv(c4, c4))
        self.conv5 = nn.Sequential(conv(c4, c5, 3, 2), conv(c5, c5))
        self.conv6_ = nn.Sequential(conv(c5, c6, 3, 2), conv(c6, c6))
        d5, d4, d3, d2 = (round(channels * width) for channels in (512, 256, 128, 64))
        joined = (c5 + d5 + 2, c4 + d4 + 2, c3 + d3 + 2, c2 + d2 + 2)
        self._top_channels = joined[3]
        self.up = nn.ModuleList([_up(c6, d5), _up(joined[0], d4), _up(joined[1], d3), _up(joined[2], d2)])
        self.predict = nn.ModuleList(_predict(channels) for channels in (c6, *joined))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2, 2, 4, 2, 1) for _ in joined)

    def conv6(self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor) -> torch.Tensor:
        """conv6_BChw at 1/64: what the two pictures have to do with each other; the cheaper half."""
        return self._encode(current_B3hw, key_B3hw)[-1]

    def encode(self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor) -> dict[str, torch.Tensor]:
        """The encoder's maps, conv2 at 1/4 to conv6 at 1/64; `forward` goes on from them."""
        maps = self._encode(current_B3hw, key_B3hw)
        return {f"conv{number}": maps_BChw for number, maps_BChw in enumerate(maps, start=2)}

    def forward(
        self,
        current_B3hw: torch.Tensor,
        key_B3hw: torch.Tensor,
        encoded: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """flow_B2hw in pixels: the flow at 1/4, grown bilinearly. `encoded`: what `encode` gave."""
        quarter_B2hw = self._flows(self._maps(current_B3hw, key_B3hw, encoded))[0][-1]
        size = current_B3hw.shape[-2:]
        return SCALE * functional.interpolate(quarter_B2hw, size, mode="bilinear", align_corners=False)

    def levels(self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor) -> list[torch.Tensor]:
        """Flows at 1/64 to 1/4 and full size, each in its own pixels: what training looks at."""
        return self._sized(self._flows(self._encode(current_B3hw, key_B3hw))[0], current_B3hw)

    def add_scale(self, channels: int, level: str) -> None:
        """Give the net a scale field of so many channels."""
        self.scale = ScaleHead(self._top_channels, channels, level)

    def levels_and_scale(
        self,
        current_B3hw: torch.Tensor,
        key_B3hw: torch.Tensor,
        encoded: Mapping[str, torch.Tensor] | None = None,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """`levels`, and scale_BChw at 1/4."""
        assert self.scale is not None
        flows, top = self._flows(self._maps(current_B3hw, key_B3hw, encoded))
        return self._sized(flows, current_B3hw), self.scale(top)

    @staticmethod
    def _sized(flows: list[torch.Tensor], current_B3hw: torch.Tensor) -> list[torch.Tensor]:
        """In pixels, with the flow at full size after them."""
        width = current_B3hw.shape[-1]
        sized = [flow * (SCALE * flow.shape[-1] / width) for flow in flows]
        full = functional.interpolate(flows[-1], current_B3hw.shape[-2:], mode="bilinear")
        return [*sized, SCALE * full]

    def _maps(
        self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor, encoded: Mapping[str, torch.Tensor] | None
    ) -> list[torch.Tensor]:
        return self._encode(current_B3hw, key_B3hw) if encoded is None else list(encoded.values())

    def _encode(self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor) -> list[torch.Tensor]:
        """Maps at 1/4, 1/8, 1/16, 1/32 and 1/64."""
        feats = self.conv1(self._centred(current_B3hw, key_B3hw))
        maps = []
        for block in (self.conv2, self.conv3, self.conv4, self.conv5, self.conv6_):
            feats = block(feats)
            maps.append(feats)
        return maps

    def _centred(self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor) -> torch.Tensor:
        """Both pictures, stacked, around 0."""
        stacked = torch.cat([current_B3hw, key_B3hw], 1)
        if self.way == "fixed":
            return stacked - stacked.new_tensor(CHAIRS_MEAN_RGB * 2)[:, None, None]
        if self.way == "stored":
            return stacked - self.way_stored[:, None, None]
        mean_B611 = stacked.mean((2, 3), keepdim=True)
        if self.way == "pair":
            mean_B611 = ((mean_B611[:, :3] + mean_B611[:, 3:]) / 2).repeat(1, 2, 1, 1)
        return stacked - mean_B611

    def _flows(self, maps: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """From 1/64 to 1/4, in units of `SCALE` pixels, and the maps that the last one is read from."""
        joined = maps[-1]
        flows = [self.predict[0](joined)]
        refine = zip(reversed(maps[:-1]), self.up, self.grow, self.predict[1:], strict=True)  # type: ignore[index]
        for skip, up, grow, predict in refine:
            joined = torch.cat([skip, up(joined), grow(flows[-1])], 1)
            flows.append(predict(joined))
        return flows, joined


def flownet2_s() -> FlowNetS:
    """FlowNetS with 3/8 of its channels."""
    return FlowNetS(width=3 / 8)
