"""Promise: weights of FlowNetS, FlowNet2-S, FlowNet2-s and SpyNet as they were published give the flow that
the originals give, and anything else is refused with what does not fit.

Why: names and shapes that fit do not make a flow. Other means of the pictures, colours the other way round or
another way of growing flows only make masks a little worse, which nobody sees. So the files here are written
in the layouts of the originals, and beside ours runs a forward pass that follows their code.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as functional
from safetensors.torch import save_file
from torch import Tensor

from vidseg_core.models.flow import build_flow_net
from vidseg_core.models.flow.registry import weights_file
from vidseg_core.models.protocol import SegmenterError

SLIM = 3 / 8
ENCODER = {
    "conv1": (6, 64, 7),
    "conv2": (64, 128, 5),
    "conv3": (128, 256, 5),
    "conv3_1": (256, 256, 3),
    "conv4": (256, 512, 3),
    "conv4_1": (512, 512, 3),
    "conv5": (512, 512, 3),
    "conv5_1": (512, 512, 3),
    "conv6": (512, 1024, 3),
    "conv6_1": (1024, 1024, 3),
}
"""Layer -> inputs, outputs, kernel of FlowNetS."""
LEVELS = {6: 1024, 5: 512, 4: 256, 3: 128, 2: 64}
"""Power of two -> channels that its transposed convolution makes (6: those of the encoder)."""


def flownet_file(width: float = 1.0, *, biased: bool, small: bool = False) -> dict[str, Tensor]:
    """FlowNetS in the torch layouts. `biased`: NVIDIA's, with biases where FlowNetPytorch has none. `small`:
    one number in place of all, so that the full width costs nothing."""
    numbers = torch.Generator().manual_seed(1)
    state: dict[str, Tensor] = {}

    def layer(name: str, *shape: int, bias: bool, outputs: int) -> None:
        scale = (2.0 / (shape[2] ** 2 * (shape[1] if name[0] in "cp" else shape[0]))) ** 0.5
        weight = torch.randn(1 if small else shape, generator=numbers) * scale
        state[f"{name}.weight"] = weight.expand(shape)
        if bias:
            state[f"{name}.bias"] = torch.randn(outputs, generator=numbers) * 0.1

    def slim(channels: int) -> int:
        return channels if channels == 6 else round(channels * width)

    for name, (inputs, outputs, kernel) in ENCODER.items():
        layer(f"{name}.0", slim(outputs), slim(inputs), kernel, kernel, bias=True, outputs=slim(outputs))
    skips = {5: 512, 4: 512, 3: 256, 2: 128}
    joined = slim(LEVELS[6])
    for size in LEVELS:
        layer(f"predict_flow{size}", 2, joined, 3, 3, bias=biased, outputs=2)
        if size > 2:
            made = slim(LEVELS[size - 1])
            layer(f"deconv{size - 1}.0", joined, made, 4, 4, bias=biased, outputs=made)
            layer(f"upsampled_flow{size}_to_{size - 1}", 2, 2, 4, 4, bias=False, outputs=2)
            joined = slim(skips[size - 1]) + made + 2
    return state


def flownet_flow(state: dict[str, Tensor], seen: Tensor) -> Tensor:
    """FlowNetS as FlowNetPytorch and flownet2-pytorch compute it, from what the first layer sees."""

    def conv(name: str, maps: Tensor, stride: int) -> Tensor:
        weight, bias = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
        kernel = weight.shape[-1]
        return functional.leaky_relu(functional.conv2d(maps, weight, bias, stride, kernel // 2), 0.1)

    def grown(name: str, maps: Tensor) -> Tensor:
        return functional.conv_transpose2d(maps, state[f"{name}.weight"], state.get(f"{name}.bias"), 2, 1)

    def flow(size: int, maps: Tensor) -> Tensor:
        name = f"predict_flow{size}"
        return functional.conv2d(maps, state[f"{name}.weight"], state.get(f"{name}.bias"), 1, 1)

    maps = {2: conv("conv2", conv("conv1", seen, 2), 2)}
    for size in (3, 4, 5, 6):
        maps[size] = conv(f"conv{size}_1", conv(f"conv{size}", maps[size - 1], 2), 1)
    joined = maps[6]
    for size in (5, 4, 3, 2):
        up = grown(f"upsampled_flow{size + 1}_to_{size}", flow(size + 1, joined))
        joined = torch.cat([maps[size], functional.leaky_relu(grown(f"deconv{size}.0", joined), 0.1), up], 1)
    return 20.0 * functional.interpolate(flow(2, joined), scale_factor=4, mode="bilinear")


def caffe_file(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The torch layout as Caffe has it: names of layers, numbers of blobs, blue before red."""
    place = {size: number for number, size in enumerate(LEVELS, start=1)}
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        layer, kind = key.split(".")[0], key.split(".")[-1]
        if layer.startswith("predict_flow"):
            layer = f"Convolution{place[int(layer[-1])]}"
        layer = layer.replace("upsampled_", "upsample_").replace("_to_", "to")
        if (layer, kind) == ("conv1", "weight"):
            value = value[:, [2, 1, 0, 5, 4, 3]]
        found[f"{layer}.{'0' if kind == 'weight' else '1'}"] = value.contiguous()
    return found


def pictures(height: int = 64, width: int = 128) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    first, second = torch.rand(2, 1, 3, height, width, generator=generator)
    return first, 0.6 * second  # another mean than the first


CAFFE_MEANS = {"img0s_aug": (0.1, 0.2, 0.4), "img1s_aug": (0.3, 0.5, 0.6)}
"""Layer -> means of blue, green and red."""


@pytest.mark.parametrize("layout", ["FlowNetPytorch", "flownet2-pytorch", "Caffe", "Caffe without means"])
def test_flownet_flows_as_in_its_original(layout: str, tmp_path: Path) -> None:
    state = flownet_file(SLIM, biased=layout != "FlowNetPytorch")
    file = tmp_path / "published.pth.tar"
    if layout.startswith("Caffe"):
        file = tmp_path / "published.safetensors"
        means = {
            f"{layer}.{blob}": torch.tensor(bgr).reshape(1, 3, 1, 1).expand(1, 3, *size).contiguous()
            for layer, bgr in CAFFE_MEANS.items()
            for blob, size in ((1, (4, 5)), (2, (1, 1)))
        }
        counts = {f"{layer}.0": torch.full((1, 1, 1, 1), 1e6) for layer in CAFFE_MEANS}
        save_file(caffe_file(state) | (means | counts if layout == "Caffe" else {}), file)
    else:
        torch.save({"epoch": 1, "state_dict": state, "best_EPE": 1.9}, file)
    current, key = pictures()
    both_B32HW = torch.stack([current, key], 2)
    mean = both_B32HW.flatten(2).mean(-1)[:, :, None, None]
    means = [mean, mean]
    if layout == "FlowNetPytorch":
        means = [torch.tensor([0.411, 0.432, 0.45])[None, :, None, None]] * 2
    if layout == "Caffe":
        means = [torch.tensor(bgr[::-1])[None, :, None, None] for bgr in CAFFE_MEANS.values()]
    built = build_flow_net("flownet2_s", file)
    with torch.inference_mode():
        expected = flownet_flow(state, torch.cat([current - means[0], key - means[1]], 1))
        found = built.net(current, key)
    assert built.trained and expected.std() > 0.5
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_the_full_width_fits_flownet_s_alone(tmp_path: Path) -> None:
    file = tmp_path / "flownets.pth.tar"
    torch.save({"state_dict": flownet_file(biased=True, small=True)}, file)
    assert build_flow_net("flownet_s", file).trained
    with pytest.raises(
        SegmenterError, match=r"does not fit flow net 'flownet2_s': .* is \(64, 6, 7, 7\), not \(24"
    ):
        build_flow_net("flownet2_s", file)


def test_what_goes_on_from_published_weights_reads_pictures_as_they_do(tmp_path: Path) -> None:
    torch.save(flownet_file(SLIM, biased=False), tmp_path / "published.pt")
    built = build_flow_net("flownet2_s", tmp_path / "published.pt")
    caffe = caffe_file(flownet_file(SLIM, biased=True)) | {
        f"{layer}.2": torch.tensor(bgr).reshape(1, 3, 1, 1) for layer, bgr in CAFFE_MEANS.items()
    }
    save_file(caffe, tmp_path / "caffe.safetensors")
    for way, before in (
        ("fixed", built),
        ("stored", build_flow_net("flownet2_s", tmp_path / "caffe.safetensors")),
    ):
        (tmp_path / "trained.safetensors").write_bytes(weights_file(before.net.state_dict(), "flownet2_s"))
        again = build_flow_net("flownet2_s", tmp_path / "trained.safetensors", bare=True)
        assert again.digest == before.digest and again.net.way == way
    assert torch.equal(torch.as_tensor(again.net.way_stored), torch.tensor([0.4, 0.2, 0.1, 0.6, 0.5, 0.3]))
    assert build_flow_net("flownet2_s").net.way == ""


def spynet_file(name: str) -> dict[str, Tensor]:
    generator, sizes = torch.Generator().manual_seed(3), (8, 32, 64, 32, 16, 2)
    state: dict[str, Tensor] = {}
    for level in range(6):
        for place, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
            layer = name.format(level, place if "conv" in name else 2 * place)
            scale = (1.0 / (49 * inputs)) ** 0.5
            state[f"{layer}.weight"] = torch.randn(outputs, inputs, 7, 7, generator=generator) * scale
            state[f"{layer}.bias"] = torch.randn(outputs, generator=generator) * 0.3
    return state


def spynet_flow(state: dict[str, Tensor], current: Tensor, key: Tensor, *, sized: bool) -> Tensor:
    """SpyNet as sniklaus/pytorch-spynet (`sized`) and mmediting compute it, warping by whole pixels."""
    mean, std = (torch.tensor(n)[None, :, None, None] for n in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    levels = [((current - mean) / std, (key - mean) / std)]
    for _ in range(5):
        if not sized or max(levels[0][0].shape[2:]) > 32:
            first, second = (functional.avg_pool2d(picture, 2) for picture in levels[0])
            levels.insert(0, (first, second))
    weights = list(state.values())
    flow = torch.zeros(1, 2, *levels[0][0].shape[2:])
    for number, (now, then) in enumerate(levels):
        if number:
            flow = 2 * functional.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
        height, width = now.shape[2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places = torch.stack([x + flow[:, 0], y + flow[:, 1]], -1)
        grid = 2 * places / torch.tensor([width - 1, height - 1]).clamp_min(1) - 1
        warped = functional.grid_sample(then, grid, padding_mode="border", align_corners=True)
        maps = torch.cat([now, warped, flow], 1)
        for layer in range(5):
            weight, bias = weights[10 * number + 2 * layer : 10 * number + 2 * layer + 2]
            maps = functional.conv2d(maps, weight, bias, padding=3)
            maps = functional.relu(maps) if layer < 4 else maps
        flow = flow + maps
    return flow


@pytest.mark.parametrize(
    ("name", "sized"),
    [("moduleBasic.{}.moduleBasic.{}", True), ("basic_module.{}.basic_module.{}.conv", False)],
)
def test_spynet_flows_as_in_its_original(name: str, sized: bool, tmp_path: Path) -> None:
    state = spynet_file(name)
    torch.save(state, tmp_path / "network.pytorch")
    current, key = pictures(64, 96)
    with torch.inference_mode():
        found = build_flow_net("spynet", tmp_path / "network.pytorch").net(current, key)
        expected = spynet_flow(state, current, key, sized=sized)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("conv4_1.0.weight"), r"1 \(conv4.1.0.weight\) missing"),
        (lambda state: state.update({"conv7.weight": torch.zeros(1)}), r"1 \(conv7.weight\) too many"),
        (lambda state: state.update({"conv1.1.running_mean": torch.zeros(24)}), "batch normalisation"),
    ],
)
def test_anything_else_is_refused_by_name(change: object, says: str, tmp_path: Path) -> None:
    state = flownet_file(SLIM, biased=True, small=True)
    change(state)  # type: ignore[operator]
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(SegmenterError, match=says):
        build_flow_net("flownet2_s", tmp_path / "odd.pt")
