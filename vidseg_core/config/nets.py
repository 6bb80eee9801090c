"""Segmenters by name, as data: what options, help, messages and documents know of them.

Model: a name stands for a net of the package (`NETS`), for one whose weights are fetched when it is named
(`FETCHED`), for an architecture without weights (`ALIASES`), or it is ``family:which``. Nothing here imports
anything heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vidseg_core.classes import STREET_CLASSES, VOC_CLASSES

__all__ = [
    "ALIASES",
    "CHOICE_OF_NETS",
    "FETCHED",
    "NAMED_NETS",
    "NETS",
    "NET_FAMILIES",
    "FetchedNet",
]

NETS = ("plain", "tiny-face", "tiny-scenes", "constant")
"""Segmenters with a name of their own."""
NET_FAMILIES = ("tiny", "smp", "torchvision", "hf", "fastseg", "net", "onnx", "sharing", "truncated")
"""Those of which there are many: ``family:which``."""
ALIASES: Mapping[str, str] = {
    "deeplabv3plus-resnet50": "smp:DeepLabV3Plus/resnet50",
    "deeplabv3plus-mobilenetv2": "smp:DeepLabV3Plus/mobilenet_v2",
    "deeplabv3plus-xception65": "smp:DeepLabV3Plus/tu-xception65",
    "deeplabv3-resnet50": "torchvision:deeplabv3_resnet50",
    "deeplabv2-resnet101": "net:deeplabv2-resnet101",
    "deeplabv2-vgg16": "net:deeplabv2-vgg16",
    "deeplab-fast": "net:deeplab-fast",
    "pspnet-resnet18": "net:pspnet-resnet18",
    "pspnet-resnet50": "net:pspnet-resnet50",
    "pspnet-resnet101": "net:pspnet-resnet101",
    "pspnet-mobilenetv2": "net:pspnet-mobilenetv2",
    "fpn-densenet121": "smp:FPN/densenet121",
    "hrnet-w18": "net:hrnet-w18",
    "hrnet-w18-small": "net:hrnet-w18-small",
    "bisenetv2": "net:bisenetv2",
    "espnetv2": "net:espnetv2",
    "fc-hardnet70": "net:fc-hardnet70",
    "fcn-resnet50": "torchvision:fcn_resnet50",
    "fcn-vgg16": "net:fcn-vgg16",
    "segformer-b0": "hf:segformer-b0",
    "mask2former-swin-small": "hf:mask2former-swin-small",
}
"""Short names for the nets that the literature on key frames and propagation runs. An alias is its spec,
nothing more: the segmenter that it builds has the spec's name and digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedNet:
    """A trained net whose weights are somebody else's, and are fetched once, when it is named."""

    spec: str
    """What is built, as one would type it; a hub id names its weights itself."""
    knows: str
    """What it segments, for people."""
    megabytes: int
    """What is fetched, 10^6 bytes."""
    licence: str
    """Of the weights, as their publisher states it; that of the code may be another."""
    trained_on: str
    """Data sets, whose terms the publisher's licence does not change."""
    url: str = ""
    """Of the weights file, unless `spec` is a hub id."""
    sha256: str = ""
    """Of that file in hex, or how it begins as far as it is published."""
    class_names: tuple[str, ...] = ()
    """What the file itself does not say."""


_TORCHVISION = "https://download.pytorch.org/models"
FETCHED: Mapping[str, FetchedNet] = {
    "voc": FetchedNet(
        spec="torchvision:deeplabv3_resnet50",
        knows="people, animals, vehicles, furniture",
        megabytes=168,
        licence="BSD-3-Clause (torchvision)",
        trained_on="COCO with the 21 classes of PASCAL VOC, ImageNet",
        url=f"{_TORCHVISION}/deeplabv3_resnet50_coco-cd0a2569.pth",
        sha256="cd0a2569",
        class_names=VOC_CLASSES,
    ),
    "voc-small": FetchedNet(
        spec="torchvision:lraspp_mobilenet_v3_large",
        knows="the same, faster and coarser",
        megabytes=13,
        licence="BSD-3-Clause (torchvision)",
        trained_on="COCO with the 21 classes of PASCAL VOC, ImageNet",
        url=f"{_TORCHVISION}/lraspp_mobilenet_v3_large-d234d4ea.pth",
        sha256="d234d4eae9d55d5f76de18b77cf0dc62c66fe5c5482758209d00f950c92bb280",
        class_names=VOC_CLASSES,
    ),
    "street": FetchedNet(
        spec="fastseg:128",
        knows="roads, cars, people and signs from a car; wants --working_size 1024",
        megabytes=26,
        licence="MIT (fastseg)",
        trained_on="Cityscapes, ImageNet",
        url=(
            "https://github.com/ekzhang/fastseg/releases/download/v0.1-weights/"
            "mobilev3large-lraspp-f128-9cbabfde.pt"
        ),
        sha256="9cbabfde06332879ebb2ef344506099f363efd377afdebdbdf548298ce18557e",
        class_names=STREET_CLASSES,
    ),
    "ade20k": FetchedNet(
        spec="hf:openmmlab/upernet-convnext-tiny@876ffc56b819a829448f7e81e9f8606deef6fb65",
        knows="150 classes of rooms, streets and nature",
        megabytes=241,
        licence="MIT (OpenMMLab)",
        trained_on="ADE20K, ImageNet",
    ),
}

NAMED_NETS = (*NETS, *FETCHED, *ALIASES)
"""All short names."""


def _line(name: str) -> str:
    net = FETCHED[name]
    knows, licence = net.knows.partition(";")[0], net.licence.split()[0]
    return f"  --segmenter {name:<12} {knows}; {net.megabytes} MB, {licence}"


CHOICE_OF_NETS = "\n".join(
    (
        "say which net segments the videos, for example",
        "  --segmenter tiny-face    skin, eyes, lips, inner mouth of a talking head; in the package",
        *map(_line, ("voc", "street")),
        "or ade20k, a net of your own (hf:FOLDER, onnx:FILE, smp:ARCH/ENCODER, ...): see docs/models.md",
    )
)
"""What is said where no net is named: there is none that is right for every video."""
