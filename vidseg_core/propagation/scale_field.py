"""The scale field S of DFF (Zhu et al. 2017, section 3; DVRL 3.1): what warped features are multiplied with.

Model: beside the flow, a flow net may say for each place and channel how far the warped features (or
scores) can be believed: f_i = W(f_k, M_{i->k}) * S_{i->k}. S is 1 everywhere before it is trained. It has as
many channels as what it multiplies, so it belongs to one N and one level. Flow and scale travel as one: a
`ScaledFlow` is a flow for whoever wants no more, and loses its scale in any arithmetic.

Invariant: labels are never scaled; a scale of another level or channel count is an error, never ignored.

Legend: B pairs, C channels, H, W rows and columns; q rows and columns of the scale map; 2 = (u, v).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as functional


class ScaleError(ValueError):
    """A scale field that does not belong to what it should multiply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleField:
    """S of one pair, at the resolution in which the net gave it."""

    level: str
    """`scores` or `features`: what it was trained to multiply."""
    scale_Cqq: torch.Tensor
    covers: tuple[float, float]
    """Rows and columns of the picture, in pixels of the scale map: less than its size if it was padded."""

    def apply(self, maps: Sequence[torch.Tensor], level: str) -> list[torch.Tensor]:
        """The maps, each CHW, times their share of the channels, in order.

        Maps after the last channel (the size that padded features carry along) stay as they are.
        """
        if level != self.level:
            raise ScaleError(
                f"the flow net's scale field was trained for {self.level}; it cannot multiply {level}"
            )
        channels = [one_map.shape[0] for one_map in maps]
        wanted, counts = self.scale_Cqq.shape[0], np.cumsum(channels).tolist()
        if wanted not in counts:
            raise ScaleError(
                f"the flow net's scale field has {wanted} channel(s), but the {level} have {counts[-1]}: "
                "it was trained with another segmenter"
            )
        used = counts.index(wanted) + 1
        parts = self.scale_Cqq.split(channels[:used])
        scaled = [
            one_map * grow_scale(part[None], self.covers, *one_map.shape[-2:])[0].to(one_map)
            for one_map, part in zip(maps[:used], parts, strict=True)
        ]
        return [*scaled, *maps[used:]]


def grow_scale(
    scale_BCqq: torch.Tensor, covers: tuple[float, float], height: int, width: int
) -> torch.Tensor:
    """The part of the scale map that covers the picture, at another resolution (bilinear)."""
    rows, columns = scale_BCqq.shape[-2:]
    if covers == (rows, columns) == (height, width):
        return scale_BCqq
    y_H = _places(height, covers[0] / rows, scale_BCqq)
    x_W = _places(width, covers[1] / columns, scale_BCqq)
    grid_HW2 = torch.stack([x_W[None, :].expand(height, width), y_H[:, None].expand(height, width)], -1)
    grid_BHW2 = grid_HW2[None].expand(len(scale_BCqq), -1, -1, -1)
    return functional.grid_sample(
        scale_BCqq.float(), grid_BHW2, mode="bilinear", padding_mode="border", align_corners=False
    )


def _places(count: int, share: float, like: torch.Tensor) -> torch.Tensor:
    """Centres of `count` pixels over the first `share` of a side that runs from -1 to 1."""
    middle = torch.arange(count, dtype=torch.float32, device=like.device) + 0.5
    return middle * (2.0 * share / count) - 1.0


class ScaledFlow(np.ndarray):
    """flow_HW2 that brings its scale field along; any array made from it is a flow without one."""

    scale: ScaleField | None

    def __new__(cls, flow_HW2: np.ndarray, scale: ScaleField) -> Self:
        flow = flow_HW2.view(cls)
        flow.scale = scale
        return flow

    def __array_finalize__(self, made_from: object) -> None:
        self.scale = None

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()


def scale_of(flow_HW2: np.ndarray | None) -> ScaleField | None:
    """The scale field that comes with a flow, if any."""
    return getattr(flow_HW2, "scale", None)
