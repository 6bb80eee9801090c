"""`fastseg:<filters>`: MobileNetV3-Large with an LR-ASPP head, as fastseg (E. Zhang) trained it on streets.

Model: the trunk is timm's MobileNetV3-Large, kept at stride 8 by dilation; the head weighs its last map by
what is around each place, climbs back to stride 2 with two skips and classifies there. Split: N_task is the
classifying convolution. Invariant: parameters have fastseg's names, so that its files fit as they are
published.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.request import ModelRequest, Recipe, assemble
from vidseg_core.models.split import SplitNet, SplitSegmenter
from vidseg_core.models.torchvision_compat import import_torchvision

FILTERS = ("128", "256")
"""Channels of the head for which weights are published."""
DEFAULT_CLASSES = 19
DILATIONS = {3: 2, 4: 2, 5: 4, 6: 4}
"""By stage of the trunk; the first two begin with a stride that is dropped."""
WINDOW, STEP = (49, 49), (16, 20)
"""What is around a place: averages over windows of the last map; smaller where the map is."""


class FastsegNet(SplitNet):
    """Trunk and LR-ASPP head."""

    stride = 2
    multiple = 8
    low_count, low_stride = 3, 2

    def __init__(self, filters: int, classes: int) -> None:
        super().__init__()
        self.trunk = _Trunk()
        self.aspp_conv1 = nn.Sequential(
            nn.Conv2d(960, filters, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()
        )
        self.aspp_conv2 = nn.Sequential(_Around(), nn.Conv2d(960, filters, 1, bias=False), nn.Sigmoid())
        self.convs2 = nn.Conv2d(16, 32, 1, bias=False)
        self.convs4 = nn.Conv2d(24, 64, 1, bias=False)
        self.conv_up1 = nn.Conv2d(filters, filters, 1)
        self.conv_up2 = _Mix(filters + 64, filters)
        self.conv_up3 = _Mix(filters + 32, filters)
        self.last = nn.Conv2d(filters, classes, 1)

    def encode(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """N_feat: (B, filters, H/2, W/2)."""
        return self.higher(self.lower(frames_B3HW))

    def lower(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """S_l: the trunk as far as its third stage, the first at stride 8."""
        return self.trunk.lower(frames_B3HW)

    def higher(self, low: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """S_h: the rest of the trunk, and the head."""
        at2, at4, at8 = low[0], low[1], self.trunk.higher(low[2])
        around = F.interpolate(self.aspp_conv2(at8), at8.shape[2:], mode="bilinear", align_corners=True)
        coarse = self.conv_up1(self.aspp_conv1(at8) * around)
        middle = self.conv_up2(torch.cat([_scaled(coarse, at4), self.convs4(at4)], dim=1))
        return (self.conv_up3(torch.cat([_scaled(middle, at2), self.convs2(at2)], dim=1)),)

    def decode(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """N_task, at half of the frame's size."""
        return self.last(maps[0])


class _Trunk(nn.Module):
    """Maps at strides 2, 4 and 8, after one, two and all seven stages; three of these are in `lower`."""

    def __init__(self) -> None:
        super().__init__()
        import_torchvision()
        import timm

        net = timm.create_model("tf_mobilenetv3_large_100", pretrained=False)
        stages = list(net.get_submodule("blocks").children())
        for number, dilation in DILATIONS.items():
            for block in stages[number].children():
                _dilate(block, dilation)
        self.early = nn.Sequential(net.get_submodule("conv_stem"), net.get_submodule("bn1"))
        for number, stage in enumerate(stages):
            self.add_module(f"block{number}", stage)

    def lower(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        at2 = self.get_submodule("block0")(self.early(frames_B3HW))
        at4 = self.get_submodule("block1")(at2)
        return at2, at4, self.get_submodule("block2")(at4)

    def higher(self, at8: torch.Tensor) -> torch.Tensor:
        for number in range(3, 7):
            at8 = self.get_submodule(f"block{number}")(at8)
        return at8


def _dilate(block: nn.Module, dilation: int) -> None:
    """Spread the block's spatial convolution instead of letting it stride."""
    name = "conv_dw" if hasattr(block, "conv_dw") else "conv"
    found = block.get_submodule(name)
    assert isinstance(found, nn.Conv2d)
    found.stride, found.dilation = (1, 1), (dilation, dilation)
    if type(found) is nn.Conv2d:  # timm's own kind pads by what it is
        around = dilation * (found.kernel_size[0] - 1) // 2
        found.padding = (around, around)


class _Around(nn.Module):
    """Averages over windows."""

    def forward(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        rows, columns = map_BFhw.shape[2:]
        return F.avg_pool2d(map_BFhw, (min(WINDOW[0], rows), min(WINDOW[1], columns)), STEP)


class _Mix(nn.Module):
    """A 1x1 convolution, normalised."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, map_BFhw: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(map_BFhw)))


def _scaled(map_BFhw: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(map_BFhw, size=like.shape[2:], mode="bilinear", align_corners=False)


def build_fastseg(request: ModelRequest) -> SplitSegmenter:
    """The segmenter for `fastseg:<filters>`, on the CPU."""
    if request.body not in FILTERS:
        raise SegmenterError(f"segmenter {request.spec!r} should read fastseg:{' or fastseg:'.join(FILTERS)}")

    def split(net: nn.Module) -> SplitNet:
        assert isinstance(net, FastsegNet)
        return net

    recipe = Recipe(
        build=lambda classes: FastsegNet(int(request.body), classes),
        split=split,
        head_key="last.weight",
        default_classes=DEFAULT_CLASSES,
    )
    return assemble(request, recipe)
