"""What turns the deviation D(i -> k) into a short vector: the part that policies and decision nets share.

Two trunks. `light` reads a handful of named numbers; their scaling is part of the weights, so that a file
can be used wherever the same features are computed. `dvrl` reads a map of a flow net (conv6) through one
convolution and fully connected layers, as DVSNet section 3.4 and DVRL section 3.2 do. A map is one feature by
name (`scheduling.pair_maps`), its shape is in the fingerprint of the tables.

Legend: W decisions, F features, C x h x w the map that the F = C h w features are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from vidseg_core.config.catalogue import MAP_SETS, MAP_SHAPE

_MEAN = re.compile(r"conv6_(\d+)")
"""A channel of conv6, averaged over space."""


class PolicyError(ValueError):
    """A policy or decision net that cannot be made, read or used as asked; one sentence that says why."""

    exit_code = 2


class LightTrunk(nn.Module):
    """Standardised features through a small perceptron; long tails are taken in with log(1 + |x|)."""

    def __init__(self, features: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.centre_F: torch.Tensor
        self.scale_F: torch.Tensor
        self.register_buffer("centre_F", torch.zeros(features))
        self.register_buffer("scale_F", torch.ones(features))
        self.layers = _connected(features, widths)
        self.width = widths[-1] if widths else features

    def set_scaling(self, deviation_WF: torch.Tensor) -> None:
        """Standardise to these; a feature that never changes is left out of account."""
        seen = _compress(deviation_WF.double())
        spread = seen.std(dim=0, unbiased=False)
        self.centre_F.copy_(seen.mean(dim=0))
        self.scale_F.copy_(torch.where(spread > 1e-6, 1.0 / spread.clamp_min(1e-6), torch.zeros(())))

    def forward(self, deviation_WF: torch.Tensor) -> torch.Tensor:
        return self.layers((_compress(deviation_WF) - self.centre_F) * self.scale_F)


class MapTrunk(nn.Module):
    """Conv0 with 96 channels, then fully connected layers (DVRL section 3.2: 1024, 1024 and 128)."""

    def __init__(self, shape: tuple[int, int, int], widths: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = self.shape = shape
        self.conv0 = nn.Conv2d(channels, 96, 3 if height * width > 1 else 1, padding="same")
        self.layers = _connected(96 * height * width, widths)
        self.width = widths[-1]

    def set_scaling(self, deviation_WF: torch.Tensor) -> None:
        """Maps go in as they are, as in the papers."""

    def forward(self, deviation_WF: torch.Tensor) -> torch.Tensor:
        maps_WChw = deviation_WF.reshape(-1, *self.shape)
        return self.layers(torch.relu(self.conv0(maps_WChw)).flatten(1))


def build_trunk(
    kind: str, feature_names: Sequence[str], fingerprint: Mapping[str, str], widths: Sequence[int]
) -> LightTrunk | MapTrunk:
    """The trunk called `kind` (light, paced or dvrl) for these features; `PolicyError` when that cannot be.

    `paced` is `light` without hidden layers.
    """
    if not feature_names:
        raise PolicyError("there are no deviation features to decide on")
    maps = [name for name in feature_names if name in MAP_SETS]
    if kind in ("light", "paced"):
        if maps:
            raise PolicyError(f"{kind} reads numbers, and {maps[0]} is a map: take dvrl, or other --features")
        return LightTrunk(len(feature_names), widths)
    if kind != "dvrl":
        raise PolicyError(f"{kind!r} is no kind of policy; there are light, paced and dvrl")
    if maps and len(feature_names) == 1:
        return MapTrunk(map_shape(fingerprint.get(MAP_SHAPE, "")), widths)
    if not all(_MEAN.fullmatch(name) for name in feature_names):
        raise PolicyError(
            f"dvrl reads conv6 maps of a flow net, but these tables hold {', '.join(feature_names[:3])} ...; "
            "use light, or build tables with flownet_conv6 features"
        )
    shape = map_shape(fingerprint.get(MAP_SHAPE, f"{len(feature_names)},1,1"))
    if shape[0] * shape[1] * shape[2] != len(feature_names):
        raise PolicyError(f"{MAP_SHAPE} {shape} does not make the {len(feature_names)} features of a map")
    return MapTrunk(shape, widths)


def map_shape(text: str) -> tuple[int, int, int]:
    """(C, h, w) as written."""
    parts = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if len(parts) != 3 or min(parts) < 1:
        raise PolicyError(f"{MAP_SHAPE} {text!r} is not the shape of a map, C,h,w")
    return parts[0], parts[1], parts[2]


def _connected(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers)


def _compress(deviation_WF: torch.Tensor) -> torch.Tensor:
    return torch.log1p(deviation_WF.abs()) * torch.sign(deviation_WF)
