"""Short names for the nets that the literature on key frames and propagation runs, as data.

Model: an alias is its spec, nothing more: the segmenter that it builds has the spec's name and digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "deeplabv3plus-resnet50": "smp:DeepLabV3Plus/resnet50",
        "deeplabv3plus-mobilenetv2": "smp:DeepLabV3Plus/mobilenet_v2",
        "deeplabv3plus-xception65": "smp:DeepLabV3Plus/tu-xception65",
        "deeplabv3-resnet50": "torchvision:deeplabv3_resnet50",
        "pspnet-resnet18": "smp:PSPNet/resnet18",
        "pspnet-resnet101": "smp:PSPNet/resnet101",
        "fpn-densenet121": "smp:FPN/densenet121",
        "hrnet-w18": "smp:FPN/tu-hrnet_w18",
        "fcn-resnet50": "torchvision:fcn_resnet50",
        "segformer-b0": "hf:segformer-b0",
        "mask2former-swin-small": "hf:mask2former-swin-small",
    }
)
