"""Weights of flow nets as those who trained them published them, under our names.

| net               | layout                                       | known by                    | its way |
|-------------------|----------------------------------------------|-----------------------------|---------|
| FlowNetS          | ClementPinard/FlowNetPytorch, `flownets_*`   | `predict_flow6`, no bias    | fixed   |
| FlowNet2-S        | NVIDIA/flownet2-pytorch, `FlowNet2-S_*`      | `predict_flow6.bias`        | pair    |
| FlowNet2-S and -s | lmb-freiburg/flownet2, `<layer>.<blob>`      | `Convolution1.0`            | stored  |
| SpyNet            | sniklaus/pytorch-spynet, `network-*.pytorch` | `moduleBasic.`, `netBasic.` | sized   |
| SpyNet            | open-mmlab/mmediting, `spynet_20210409-*`    | `basic_module.`             | aligned |

A file says nothing of how its net reads pictures, so that is its *way*:
- `stored`: the means of all first and of all second pictures of its training are taken away, which the Caffe
  file holds (layers `img0s_aug` and `img1s_aug`); files without them are read as `pair`;
- `pair`: the mean of both pictures, colour by colour, is taken away (NVIDIA's port of FlowNet 2.0);
- `fixed`: numbers are taken away (`flownet.CHAIRS_MEAN_RGB`);
- `sized`, `aligned`: flows grow from corner to corner; `sized`: as many levels as bring the picture to 32
  pixels, the coarsest net first. Both read the key exactly u, v pixels away, as SpyNet's own Lua code does,
  which trained these weights; later versions of pytorch-spynet read it W / (W - 1) times as far.
Pictures are in 0..1 for all of them, flows come out in units of 20 pixels (FlowNets) or of one (SpyNet).
A way becomes a buffer of the net, `way_<name>`: it is stored with weights that training goes on from, and it
is part of their digest. Nets of ours have none.

Invariants: shapes are not touched, so a file of another width is refused where weights are fitted; a bias
that a layout does not have is 0. Caffe's first layer and its means are of BGR and are turned round here;
NVIDIA's converter has turned its files round already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from vidseg_core.models.protocol import SegmenterError
from vidseg_core.models.weights import WeightsFile

WAY = "way_"
_SIZES = (6, 5, 4, 3, 2)
"""Powers of two by which the maps are smaller that flows are predicted from, in the order of our layers."""
_STEPS = tuple(zip(_SIZES, _SIZES[1:], strict=False))


def _encoder() -> dict[str, str]:
    """Layer of FlowNetS's encoder as published -> ours."""
    found = {"conv1": "conv1.0", "conv2": "conv2.0"}
    for number, ours in ((3, "conv3"), (4, "conv4"), (5, "conv5"), (6, "conv6_")):
        found |= {f"conv{number}": f"{ours}.0.0", f"conv{number}_1": f"{ours}.1.0"}
    return found


_DECONV = {f"deconv{to}": f"up.{place}.0" for place, (_, to) in enumerate(_STEPS)}
_TORCH = (
    {f"{layer}.0": ours for layer, ours in (_encoder() | _DECONV).items()}
    | {f"predict_flow{size}": f"predict.{place}" for place, size in enumerate(_SIZES)}
    | {f"upsampled_flow{a}_to_{b}": f"grow.{place}" for place, (a, b) in enumerate(_STEPS)}
)
_CAFFE = (
    _encoder()
    | _DECONV
    | {f"Convolution{place + 1}": f"predict.{place}" for place in range(len(_SIZES))}
    | {f"upsample_flow{a}to{b}": f"grow.{place}" for place, (a, b) in enumerate(_STEPS)}
)
_CAFFE_MEANS = ("img0s_aug", "img1s_aug")
"""Caffe's layers of the first and the second picture: blob 2 is the mean of each colour, blob 1 that of each
pixel, which is not read, blob 0 a counter."""
_SNIKLAUS = re.compile(r"(?:module|net)Basic\.(\d)\.(?:module|net)Basic\.(\d)\.(weight|bias)")
_MMEDITING = re.compile(r"basic_module\.(\d)\.basic_module\.(\d)\.conv\.(weight|bias)")


def under_our_names(content: WeightsFile, net: nn.Module) -> WeightsFile:
    """The file with our names and its way, if it has a layout above; else as it is."""
    state, wanted = content.state, net.state_dict()
    if any(key.endswith("running_mean") for key in state) and "predict_flow6.weight" in state:
        raise SegmenterError(
            f"weights file {content.path} is of FlowNetS with batch normalisation, which is no net here: "
            "take the one without"
        )
    if "Convolution1.0" in state:
        renamed, way = _caffe(state)
    elif "predict_flow6.weight" in state:
        renamed = _renamed(state, _torch_name)
        way = "pair" if "predict_flow6.bias" in state else "fixed"
    elif any(_SNIKLAUS.fullmatch(key) for key in state):
        renamed, way = _renamed(state, lambda key: _level_name(_SNIKLAUS, key, 1)), "sized"
    elif any(_MMEDITING.fullmatch(key) for key in state):
        renamed, way = _renamed(state, lambda key: _level_name(_MMEDITING, key, 2)), "aligned"
    else:
        return content
    absent = [key for key in wanted if key.endswith(".bias") and key not in renamed]
    zeros = {key: torch.zeros_like(wanted[key]) for key in absent if _has_weight(key, renamed)}
    return replace(content, state={WAY + way: torch.ones(1), **renamed, **zeros})


def take_way(net: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Let the net read pictures as the file says, if it does."""
    for way in getattr(net, "ways", ()):
        if WAY + way in state:
            net.way = way
            net.register_buffer(WAY + way, torch.ones_like(state[WAY + way]))


def _renamed(state: Mapping[str, torch.Tensor], name: Callable[[str], str | None]) -> dict[str, torch.Tensor]:
    """What nobody knows keeps its name, and is named where weights are fitted."""
    return {name(key) or key: value for key, value in state.items()}


def _torch_name(key: str) -> str | None:
    layer, _, kind = key.rpartition(".")
    return f"{_TORCH[layer]}.{kind}" if layer in _TORCH else None


def _caffe_name(key: str) -> str | None:
    layer, _, blob = key.rpartition(".")
    kind = {"0": "weight", "1": "bias"}.get(blob)
    return f"{_CAFFE[layer]}.{kind}" if layer in _CAFFE and kind else None


def _caffe(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """The state under our names, RGB for BGR, and its way."""
    means = [f"{layer}.2" for layer in _CAFFE_MEANS]
    plain = {key: value for key, value in state.items() if key.partition(".")[0] not in _CAFFE_MEANS}
    renamed = _renamed(plain, _caffe_name)
    if "conv1.0.weight" in renamed:
        renamed["conv1.0.weight"] = _rgb(renamed["conv1.0.weight"])
    if not all(key in state for key in means):
        return renamed, "pair"
    return renamed | {WAY + "stored": torch.cat([state[key].flatten().flip(0) for key in means])}, "stored"


def _level_name(pattern: re.Pattern[str], key: str, step: int) -> str | None:
    """`step`: layers of ours for each of theirs; theirs may not count activations."""
    found = pattern.fullmatch(key)
    return f"nets.{found[1]}.{step * int(found[2])}.{found[3]}" if found else None


def _has_weight(bias: str, state: Mapping[str, torch.Tensor]) -> bool:
    return bias.removesuffix("bias") + "weight" in state


def _rgb(weight: torch.Tensor) -> torch.Tensor:
    """The first layer for two RGB pictures, from that for two BGR ones."""
    first, second = weight.split(weight.shape[1] // 2, dim=1)
    return torch.cat([first.flip(1), second.flip(1)], dim=1)
