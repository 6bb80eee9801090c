"""`net:<name>`: nets of the papers that no library has in this form, each built by a module of its own.

Model: a name leads to a function of the number of classes that builds the undivided net, to how it is split,
and to the key of its classifying layer. Sources and parameter counts are in the modules and in
docs/models.md; `tests/models/test_papers_nets.py` holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from vidseg_core.models.bisenetv2 import BiSeNetV2
from vidseg_core.models.dilated import deeplab_fast, deeplabv2, pspnet
from vidseg_core.models.espnetv2 import EspNetV2
from vidseg_core.models.fc_hardnet import FcHarDNet
from vidseg_core.models.hrnet import HrNet
from vidseg_core.models.protocol import unknown_name
from vidseg_core.models.request import ModelRequest, Recipe, assemble
from vidseg_core.models.smp_nets import SmpNet
from vidseg_core.models.split import SplitNet, SplitSegmenter
from vidseg_core.models.vgg_nets import DeepLabV2Vgg, FcnVgg

DEFAULT_CLASSES = 19


@dataclass(frozen=True, slots=True)
class NamedNet:
    """How one net is built."""

    build: Callable[[int], nn.Module]
    """The undivided net for a number of classes."""
    head_key: str
    """State-dict key of the classifying layer's weight."""


def _on_encoder(build: Callable[[str, int], nn.Module], encoder: str) -> NamedNet:
    return NamedNet(lambda classes: build(encoder, classes), "segmentation_head.weight")


NAMED: Mapping[str, NamedNet] = {
    "pspnet-resnet18": _on_encoder(pspnet, "resnet18"),
    "pspnet-resnet50": _on_encoder(pspnet, "resnet50"),
    "pspnet-resnet101": _on_encoder(pspnet, "resnet101"),
    "pspnet-mobilenetv2": _on_encoder(pspnet, "tu-mobilenetv2_100"),
    "deeplabv2-resnet101": NamedNet(deeplabv2, "segmentation_head.branches.0.weight"),
    "deeplab-fast": NamedNet(deeplab_fast, "segmentation_head.weight"),
    "deeplabv2-vgg16": NamedNet(DeepLabV2Vgg, "classify.weight"),
    "fcn-vgg16": NamedNet(FcnVgg, "score32.weight"),
    "hrnet-w18": NamedNet(lambda classes: HrNet("hrnet_w18", classes), "classify.weight"),
    "hrnet-w18-small": NamedNet(lambda classes: HrNet("hrnet_w18_small_v2", classes), "classify.weight"),
    "bisenetv2": NamedNet(BiSeNetV2, "classify.weight"),
    "espnetv2": NamedNet(EspNetV2, "classify.weight"),
    "fc-hardnet70": NamedNet(FcHarDNet, "classify.weight"),
}


def split_named(net: nn.Module) -> SplitNet:
    """The net in two halves: it is so itself, or it is an encoder with a decoder and a head."""
    return net if isinstance(net, SplitNet) else SmpNet(net)


def build_named(request: ModelRequest) -> SplitSegmenter:
    """The segmenter for `net:<name>`, on the CPU."""
    if request.body not in NAMED:
        raise unknown_name("net", request.body, list(NAMED))
    named = NAMED[request.body]
    recipe = Recipe(
        build=named.build, split=split_named, head_key=named.head_key, default_classes=DEFAULT_CLASSES
    )
    return assemble(request, recipe)
