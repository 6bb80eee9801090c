"""`smp:<Architecture>/<encoder>`: nets of segmentation-models-pytorch.

Split: N_feat is encoder and decoder, N_task the segmentation head (a convolution to classes and the
upsampling that the library gives it, corner-aligned), as in deep feature flow, which warps what its
classifying layer reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vidseg_core.models.protocol import SegmenterError, unknown_name
from vidseg_core.models.request import ModelRequest, Recipe, assemble, measured_stride
from vidseg_core.models.split import SplitNet, SplitSegmenter
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


Stage = Sequence[Callable[[torch.Tensor], torch.Tensor]]
"""Modules in a row, from one of an encoder's maps to the next."""


def _resnet(encoder: Any) -> list[Stage]:
    return [
        [encoder.conv1, encoder.bn1, encoder.relu],
        [encoder.maxpool, encoder.layer1],
        [encoder.layer2],
        [encoder.layer3],
        [encoder.layer4],
    ]


def _mobilenet_v2(encoder: Any) -> list[Stage]:
    ends = [place + 1 for place in encoder._out_indexes]
    return [list(encoder.features[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def _densenet(encoder: Any) -> list[Stage]:
    features: Any = encoder.features
    crossings = (features.transition1, features.transition2, features.transition3)
    stages: list[Stage] = [[features.conv0, features.norm0, features.relu0]]
    down: Stage = [features.pool0]
    for number, crossing in enumerate(crossings, start=1):
        stages.append([*down, features.get_submodule(f"denseblock{number}"), crossing.norm, crossing.relu])
        down = [crossing.conv, crossing.pool]
    return [*stages, [*down, features.denseblock4, features.norm5]]


STAGES: Mapping[str, Callable[[Any], list[Stage]]] = {
    "ResNetEncoder": _resnet,
    "MobileNetV2Encoder": _mobilenet_v2,
    "DenseNetEncoder": _densenet,
}
"""Encoders that are chains, by class: what leads from each of their maps to the next."""


def _run(stages: Sequence[Stage], maps: torch.Tensor) -> list[torch.Tensor]:
    """The map after each stage."""
    found = []
    for stage in stages:
        for layer in stage:
            maps = layer(maps)
        found.append(maps)
    return found


class SmpNet(SplitNet):
    """Encoder and decoder; segmentation head."""

    def __init__(self, model: Any, *, pyramid: int = 1) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder
        self.segmentation_head = model.segmentation_head
        self.multiple = int(model.encoder.output_stride) * pyramid
        self.stride = measured_stride(self)
        stages = STAGES.get(type(model.encoder).__name__)
        if stages is not None and model.encoder._depth > LOW_DEPTH:
            self._stages = stages(model.encoder)
            self.low_count, self.low_stride = LOW_DEPTH, 2

    def lower(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """S_l: the encoder's maps at strides 2, 4 and 8."""
        return tuple(_run(self._stages[:LOW_DEPTH], frames_B3HW))

    def higher(self, low: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """S_h: the other stages, and the decoder, which of the frame that leads the list reads the size."""
        encoder: Any = self.encoder
        batch, _, rows, columns = low[0].shape
        frame = low[0].new_zeros(()).expand(batch, 3, 2 * rows, 2 * columns)
        return (self.decoder([frame, *low, *_run(self._stages[LOW_DEPTH : encoder._depth], low[-1])]),)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat."""
        return (self.decoder(self.encoder(frames_B3HW)),)

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task."""
        return self.segmentation_head(maps[0])


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
