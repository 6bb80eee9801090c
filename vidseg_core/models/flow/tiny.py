"""TinyFlow: a small flow net for one CPU core: feature pyramid, warping, cost volumes, coarse to fine.

Model, after SpyNet (coarse to fine with warping) and PWC-Net (the same in feature space with local cost
volumes): both pictures go through one encoder with maps at 1/4, 1/8, 1/16 and 1/32. From coarse to fine, the
key's features are warped by the flow so far, compared with the current's within a small radius, and a few
convolutions say what is to be added. The flow at 1/4 becomes full size by learned convex combinations of its
3x3 neighbours (RAFT section 3.3), which keeps edges. About 0.4 million parameters.

Legend as in `layers`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import nn

from vidseg_core.models.flow.layers import ScaleHead, backward_warp, conv, cost_volume, grow_flow

FEATURES = 24
"""Channels in which the pictures are compared, the same at every size."""
CONTEXT = 16
"""Channels that a decoder hands on to the next finer one."""


class Encoder(nn.Module):
    """One picture to maps at 1/4 (24 channels), 1/8 (32), 1/16 (48) and 1/32 (64)."""

    channels = (24, 32, 48, 64)

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, stride=2)
        sizes = (16, *self.channels)
        self.levels = nn.ModuleList(
            nn.Sequential(conv(before, after, stride=2), conv(after, after))
            for before, after in zip(sizes[:-1], sizes[1:], strict=True)
        )

    def forward(self, picture_B3hw: torch.Tensor) -> list[torch.Tensor]:
        maps, feats = [], self.stem(picture_B3hw)
        for level in self.levels:
            feats = level(feats)
            maps.append(feats)
        return maps


class Decoder(nn.Module):
    """What to add to the flow of one level, and a little context for the next.

    The costs themselves vote for a displacement (soft argmax); the convolutions correct the votes and add a
    rest. So the net matches from its first step on, and learns what matching alone gets wrong.
    """

    def __init__(self, radius: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.radius = radius
        places = (2 * radius + 1) ** 2
        inputs = places + FEATURES + 2 + CONTEXT
        self.body = nn.Sequential(*(conv(a, b) for a, b in zip((inputs, *widths), widths, strict=False)))
        self.context = conv(widths[-1], CONTEXT, kernel=1)
        self.votes = nn.Conv2d(widths[-1], places, 1)
        self.rest = nn.Conv2d(widths[-1], 2, 1)
        self.sharpness = nn.Parameter(torch.tensor(8.0))
        step = torch.arange(-radius, radius + 1, dtype=torch.float32)
        places_D2 = torch.cartesian_prod(step, step).flip(1)
        self.register_buffer("places_2D", places_D2.T.contiguous(), persistent=False)

    def forward(
        self, current: torch.Tensor, key: torch.Tensor, flow_B2hw: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        current, key = _even(current, key)
        cost = cost_volume(current, backward_warp(key, flow_B2hw), self.radius)
        feats = self.body(torch.cat([cost, current, flow_B2hw, context], 1))
        shares = (self.sharpness * cost + self.votes(feats)).softmax(1)
        voted = torch.einsum("cd,bdhw->bchw", self.places_2D, shares)
        return flow_B2hw + voted + self.rest(feats), self.context(feats)


class TinyFlow(nn.Module):
    """(current, key) -> flow, both sides multiples of 32."""

    multiple = 32
    smallest = 32
    scale: ScaleHead | None

    def __init__(self) -> None:
        super().__init__()
        self.register_module("scale", None)
        self.encoder = Encoder()
        self.project = nn.ModuleList(nn.Conv2d(channels, FEATURES, 1) for channels in Encoder.channels)
        self.coarse = Decoder(3, (64, 48, 32))
        self.fine = Decoder(2, (32, 32))
        self.blend = nn.Conv2d(CONTEXT, 9 * 16, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for last in (self.coarse.votes, self.coarse.rest, self.fine.votes, self.fine.rest, self.blend):
            nn.init.normal_(last.weight, std=0.01)

    def forward(self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor) -> torch.Tensor:
        """flow_B2hw in pixels."""
        return self.levels(current_B3hw, key_B3hw)[-1]

    def levels(self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor) -> list[torch.Tensor]:
        """Flows at 1/32, 1/16, 1/8, 1/4 and full size, each in its own pixels: what training looks at."""
        return self._run(current_B3hw, key_B3hw)[0]

    def add_scale(self, channels: int, level: str) -> None:
        """Give the net a scale field of so many channels."""
        self.scale = ScaleHead(CONTEXT, channels, level)

    def levels_and_scale(
        self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """`levels`, and scale_BChw at 1/4."""
        assert self.scale is not None
        flows, context = self._run(current_B3hw, key_B3hw)
        return flows, self.scale(context)

    def _run(
        self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Flows from coarse to fine, and the context at 1/4."""
        pictures = torch.cat([_normal(current_B3hw), _normal(key_B3hw)])
        maps = [head(feats) for head, feats in zip(self.project, self.encoder(pictures), strict=True)]
        coarsest = maps[-1].shape[-2:]
        flow_B2hw = current_B3hw.new_zeros(len(current_B3hw), 2, *coarsest)
        context = current_B3hw.new_zeros(len(current_B3hw), CONTEXT, *coarsest)
        flows: list[torch.Tensor] = []
        decoders = (self.coarse, self.coarse, self.coarse, self.fine)
        for decoder, feats in zip(decoders, reversed(maps), strict=True):
            current, key = feats.chunk(2)
            flow_B2hw = grow_flow(flow_B2hw, *current.shape[-2:])
            context = functional.interpolate(context, current.shape[-2:], mode="nearest")
            flow_B2hw, context = decoder(current, key, flow_B2hw, context)
            flows.append(flow_B2hw)
        return [*flows, self._full_size(flow_B2hw, context)], context

    def _full_size(self, flow_B2hw: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Each pixel's flow as a convex combination of the 3x3 flows around it at 1/4 (RAFT section 3.3)."""
        pairs, _, rows, columns = flow_B2hw.shape
        weights = self.blend(context).view(pairs, 1, 9, 16, rows, columns).softmax(2)
        around = functional.unfold(functional.pad(flow_B2hw * 4.0, (1,) * 4, mode="replicate"), 3)
        around = around.view(pairs, 2, 9, 1, rows, columns)
        full = (weights * around).sum(2).view(pairs, 2 * 16, rows, columns)
        return functional.pixel_shuffle(full, 4)


def _even(a_BChw: torch.Tensor, b_BChw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both maps with mean zero and variance one over the pair, so that their products compare like with like
    at every level (Jonschkowski et al. 2020, section 4.2, found this to decide whether such nets learn)."""
    both = torch.stack([a_BChw, b_BChw])
    mean = both.mean((0, 2, 3, 4), keepdim=True)
    std = both.var((0, 2, 3, 4), keepdim=True, correction=0).add(1e-6).sqrt()
    even = (both - mean) / std
    return even[0], even[1]


def _normal(picture_B3hw: torch.Tensor) -> torch.Tensor:
    """Mean zero per picture and colour, so that a change of brightness does not look like motion."""
    return (picture_B3hw - picture_B3hw.mean((2, 3), keepdim=True)) * 4.0
