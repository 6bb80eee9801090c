"""Where nets of transformers can be divided into S_l and S_h: chains of stages, and what reads their maps.

Model: N_feat of these nets is a chain, each stage reading the map of the one before, and a decoder that reads
the maps of some of them. The first stages, as far as stride 8, are S_l. Invariant: all stages in order and
then `decode` are the net's own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Maps = Sequence[torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Stages:
    """`low` and `high`: each stage takes one map and gives one."""

    low: Sequence[Callable[[torch.Tensor], torch.Tensor]]
    high: Sequence[Callable[[torch.Tensor], torch.Tensor]]
    decode: Callable[[Maps], torch.Tensor]
    """From the maps of all stages to the features."""
    low_stride: int
    """Frame pixels per pixel of the first map."""

    def lower(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The maps of S_l."""
        return tuple(_run(self.low, frames_B3HW))

    def higher(self, low: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The features."""
        return self.decode([*low, *_run(self.high, low[-1])])


def _run(stages: Sequence[Callable[[torch.Tensor], torch.Tensor]], maps: torch.Tensor) -> list[torch.Tensor]:
    found = []
    for stage in stages:
        maps = stage(maps)
        found.append(maps)
    return found


def stages_of(model: Any) -> Stages | None:
    """The stages of a net whose classifying layer is gone; None for one that is no chain, or another chain
    than this version of transformers builds."""
    known = {"segformer": _segformer, "upernet": _upernet, "mobilenet_v2": _mobilenet_v2}
    build = known.get(str(model.config.model_type))
    try:
        return build(model) if build is not None else None
    except AttributeError:
        return None


def _segformer(model: Any) -> Stages:
    stages = list(model.segformer.stages)
    return Stages(
        low=stages[:2], high=stages[2:], decode=model.decode_head, low_stride=int(model.config.strides[0])
    )


def _upernet(model: Any) -> Stages | None:
    """ConvNeXt alone; the decoder reads normalised maps of some of its stages."""
    backbone = model.backbone
    if type(backbone).__name__ != "ConvNextBackbone" or "stem" in backbone.out_features:
        return None
    stages, names = list(backbone.encoder.stages), backbone.stage_names[1:]

    def first(frames_B3HW: torch.Tensor) -> torch.Tensor:
        return stages[0](backbone.embeddings(frames_B3HW))

    def decode(maps: Maps) -> torch.Tensor:
        norms = backbone.hidden_states_norms
        read = [
            norms[name](one) for name, one in zip(names, maps, strict=True) if name in backbone.out_features
        ]
        return model.decode_head(read)

    stride = int(backbone.config.patch_size)
    return Stages(low=[first, stages[1]], high=stages[2:], decode=decode, low_stride=stride)


def _mobilenet_v2(model: Any) -> Stages:
    """The stem and five blocks reach stride 8; the decoder reads the last map alone."""
    trunk: Any = model.mobilenet_v2

    def low(frames_B3HW: torch.Tensor) -> torch.Tensor:
        return _run([trunk.conv_stem, *trunk.layer[:5]], frames_B3HW)[-1]

    return Stages(
        low=[low],
        high=list(trunk.layer[5:]),
        decode=lambda maps: model.segmentation_head(maps[-1]),
        low_stride=8,
    )
