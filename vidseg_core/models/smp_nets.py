"""`smp:<Architecture>/<encoder>`: nets of segmentation-models-pytorch.

Split: N_feat is encoder and decoder, N_task the segmentation head (a convolution to classes and the
upsampling that the library gives it, corner-aligned), as in deep feature flow, which warps what its
classifying layer reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.levels import Level, LevelNet, Maps
from vidseg_core.models.protocol import SegmenterError, unknown_name
from vidseg_core.models.request import ModelRequest, Recipe, assemble, measured_stride
from vidseg_core.models.split import SplitSegmenter
from vidseg_core.models.torchvision_compat import import_torchvision

ARCHITECTURES = (
    "Unet",
    "UnetPlusPlus",
    "MAnet",
    "Linknet",
    "FPN",
    "PSPNet",
    "DeepLabV3",
    "DeepLabV3Plus",
    "PAN",
    "UPerNet",
    "Segformer",
)
"""DPT is left out: its decoder reads more than the encoder's maps."""
DEFAULT_CLASSES = 19
LOW_DEPTH = 3
"""Of the encoder's stages, those that belong to S_l (LVS section 2.1)."""
PAN_PYRAMID = 8
"""PAN halves the encoder's last map three times more, and fails on frames too small for that."""

Layers: TypeAlias = Sequence[Callable[[torch.Tensor], torch.Tensor]]
"""Modules in a row, from one of an encoder's maps to the next."""


def _resnet(encoder: Any) -> list[Layers]:
    return [
        [encoder.conv1, encoder.bn1, encoder.relu],
        [encoder.maxpool, encoder.layer1],
        [encoder.layer2],
        [encoder.layer3],
        [encoder.layer4],
    ]


def _mobilenet_v2(encoder: Any) -> list[Layers]:
    ends = [place + 1 for place in encoder._out_indexes]
    return [list(encoder.features[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def _densenet(encoder: Any) -> list[Layers]:
    features: Any = encoder.features
    crossings = (features.transition1, features.transition2, features.transition3)
    stages: list[Layers] = [[features.conv0, features.norm0, features.relu0]]
    down: Layers = [features.pool0]
    for number, crossing in enumerate(crossings, start=1):
        stages.append([*down, features.get_submodule(f"denseblock{number}"), crossing.norm, crossing.relu])
        down = [crossing.conv, crossing.pool]
    return [*stages, [*down, features.denseblock4, features.norm5]]


STAGES: Mapping[str, Callable[[Any], list[Layers]]] = {
    "ResNetEncoder": _resnet,
    "MobileNetV2Encoder": _mobilenet_v2,
    "DenseNetEncoder": _densenet,
}
"""Encoders that are chains, by class: what leads from each of their maps to the next."""


class SmpNet(LevelNet):
    """Encoder and decoder; segmentation head."""

    def __init__(self, model: Any, *, pyramid: int = 1) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder
        self.segmentation_head = model.segmentation_head
        self.multiple = int(model.encoder.output_stride) * pyramid
        self.stride = measured_stride(self)
        if len(self.levels()) > LOW_DEPTH:
            self.low_count, self.low_stride = LOW_DEPTH, 2

    def levels(self) -> list[Level]:
        """The encoder's stages, from stride 2 on; none of an encoder that is no chain."""
        encoder: Any = self.encoder
        stages = STAGES.get(type(encoder).__name__)
        return [partial(_in_a_row, layers) for layers in stages(encoder)[: encoder._depth]] if stages else []

    def climb(self, maps: Maps) -> Maps:
        """The decoder, which of the frame that leads its list reads the size."""
        if len(maps) < len(self.levels()):
            return (_short_fpn(self.decoder, maps),)
        batch, _, rows, columns = maps[0].shape
        frame = maps[0].new_zeros(()).expand(batch, 3, 2 * rows, 2 * columns)
        return (self.decoder([frame, *maps]),)

    def encode(self, frames_B3HW: torch.Tensor) -> Maps:
        """N_feat."""
        return (self.decoder(self.encoder(frames_B3HW)),)

    def decode(self, maps: Maps) -> torch.Tensor:
        """N_task."""
        return self.segmentation_head(maps[0])


def _in_a_row(layers: Layers, maps: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        maps = layer(maps)
    return maps


def _short_fpn(decoder: Any, maps: Maps) -> torch.Tensor:
    """FPN's decoder from fewer maps (it reads those from stride 4 on): the coarsest there is becomes the
    top."""
    if type(decoder).__name__ != "FPNDecoder":
        raise SegmenterError("this net can be truncated if it is an FPN, e.g. truncated:1/smp:FPN/resnet18")
    laterals = (decoder.p2.skip_conv, decoder.p3.skip_conv, decoder.p4.skip_conv)
    top, summed = None, []
    for place, fine in reversed(list(enumerate(maps[1:]))):
        level = laterals[place](fine)
        if top is not None:
            level = level + F.interpolate(top, scale_factor=2.0, mode=decoder.p4.interpolation_mode)
        summed.append(decoder.seg_blocks[len(laterals) - place](level))
        top = level
    return decoder.dropout(decoder.merge(summed))


def build_smp(request: ModelRequest) -> SplitSegmenter:
    """The segmenter for `smp:<Architecture>/<encoder>`, on the CPU."""
    architecture, slash, encoder = request.body.partition("/")
    if not slash or not encoder:
        raise SegmenterError(f"segmenter {request.spec!r} should read smp:<Architecture>/<encoder>")
    if architecture not in ARCHITECTURES:
        raise unknown_name("smp architecture", architecture, ARCHITECTURES)
    import_torchvision()
    import segmentation_models_pytorch as smp

    known = smp.encoders.get_encoder_names()
    if encoder not in known and not encoder.startswith("tu-"):
        raise unknown_name("smp encoder", encoder, known)

    def build(classes: int) -> nn.Module:
        try:
            return smp.create_model(architecture, encoder, encoder_weights=None, classes=classes)
        except (RuntimeError, ValueError, KeyError, NotImplementedError) as error:
            raise SegmenterError(f"smp cannot build {request.body}: {error}") from error

    pyramid = PAN_PYRAMID if architecture == "PAN" else 1
    recipe = Recipe(
        build=build,
        split=lambda model: SmpNet(model, pyramid=pyramid),
        head_key="segmentation_head.0.weight",
        default_classes=DEFAULT_CLASSES,
    )
    return assemble(request, recipe)
