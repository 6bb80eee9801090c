"""`torchvision:<name>`: the segmentation nets of torchvision.

Split: N_task is the last convolution of the classifier; N_feat is the backbone and what the classifier does
before it (FCN, DeepLabV3). LR-ASPP keeps its whole small classifier as N_task, on the two maps that it reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vidseg_core.models.protocol import unknown_name
from vidseg_core.models.request import ModelRequest, Recipe, assemble, measured_stride
from vidseg_core.models.split import SplitNet, SplitSegmenter
from vidseg_core.models.torchvision_compat import import_torchvision

DEFAULT_CLASSES = 21


class SequentialNet(SplitNet):
    """FCN and DeepLabV3: a sequential classifier whose last layer is the classifying convolution."""

    multiple = 16

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = model.backbone
        layers = list(model.classifier.children())
        self.context, self.classify = nn.Sequential(*layers[:-1]), layers[-1]
        self.stride = measured_stride(self)
        self.multiple = self.stride
        self._border = _border(self.backbone)
        self.low_count, self.low_stride = 1, 8

    def lower(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """S_l: the backbone as far as stride 8."""
        return (_stages(self.backbone, frames_B3HW, until=self._border),)

    def higher(self, low: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """S_h: the rest of it, and what the classifier does before its last layer."""
        return (self.context(_stages(self.backbone, low[0], after=self._border)),)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat."""
        return (self.context(self.backbone(frames_B3HW)["out"]),)

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task, at the features' size."""
        return self.classify(maps[0])


class LrasppNet(SplitNet):
    """LR-ASPP: features are the fine map (stride 8) and the coarse one (stride 16)."""

    stride = 8
    multiple = 16
    maps = 2
    low_count, low_stride = 1, 8

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone, self.classifier = model.backbone, model.classifier
        self._border = _border(self.backbone)

    def lower(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """S_l: the backbone as far as the fine map."""
        return (_stages(self.backbone, frames_B3HW, until=self._border),)

    def higher(self, low: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """S_h: that map, and the coarse one that the rest makes of it."""
        return low[0], _stages(self.backbone, low[0], after=self._border)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat."""
        found = self.backbone(frames_B3HW)
        return found["low"], found["high"]

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task, at an eighth of the frame's size."""
        return self.classifier({"low": maps[0], "high": maps[1]})


def _border(backbone: nn.Module) -> str:
    """The backbone's last child at stride 8: `layer2` of a ResNet; of a MobileNetV3 the third block from the
    end of those that were built to halve the map, which is where LR-ASPP takes its fine map, too."""
    names = dict(backbone.named_children())
    return "layer2" if "layer2" in names else [name for name in names if _halves(names[name])][-3]


def _halves(block: nn.Module) -> bool:
    return bool(getattr(block, "_is_cn", False))


def _stages(backbone: nn.Module, maps: torch.Tensor, *, after: str = "", until: str = "") -> torch.Tensor:
    """The map after the backbone's children, one after another, from the one after `after` to `until`."""
    runs = not after
    for name, stage in backbone.named_children():
        maps = stage(maps) if runs else maps
        runs = runs or name == after
        if name == until:
            break
    return maps


def build_torchvision(request: ModelRequest) -> SplitSegmenter:
    """The segmenter for `torchvision:<name>`, on the CPU."""
    models: Any = import_torchvision().models
    known = models.list_models(module=models.segmentation)
    if request.body not in known:
        raise unknown_name("torchvision segmentation model", request.body, known)

    def build(classes: int) -> nn.Module:
        kwargs = {} if request.body.startswith("lraspp") else {"aux_loss": False}
        return models.get_model(
            request.body, weights=None, weights_backbone=None, num_classes=classes, **kwargs
        )

    return assemble(request, _recipe(request.body, build))


def _recipe(name: str, build: Callable[[int], nn.Module]) -> Recipe:
    if name.startswith("lraspp"):
        return Recipe(
            build=build,
            split=LrasppNet,
            head_key="classifier.low_classifier.weight",
            default_classes=DEFAULT_CLASSES,
        )
    last = 4
    return Recipe(
        build=build,
        split=SequentialNet,
        head_key=f"classifier.{last}.weight",
        default_classes=DEFAULT_CLASSES,
        ignored=("aux_classifier.",),
    )
