"""Promise: a flow net's scale field multiplies what it was trained for, place by place, in a run as in
training; labels never; a field of another level or net is refused, not ignored; untrained it changes nothing.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.toy import texture
from vidseg_core.config.catalogue import SCALED_FLOWS
from vidseg_core.models.flow import build_flow_net
from vidseg_core.models.flow.registry import weights_file
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.propagation import FlowWarp
from vidseg_core.propagation.net_flow import NetFlow
from vidseg_core.propagation.scale_field import ScaledFlow, ScaleError, ScaleField, scale_of
from vidseg_core.training.flow_loss import warp_scaled


def ramp(rows: int, columns: int, channels: int = 1) -> torch.Tensor:
    """Channel c at column x of a map `columns` wide: c + the place of the pixel's centre, 0..1."""
    x_W = (torch.arange(columns) + 0.5) / columns
    return x_W.expand(channels, rows, columns) + torch.arange(channels)[:, None, None]


def scaled_flow(
    scale_Cqq: torch.Tensor, level: str = "scores", size: tuple[int, int] = (24, 32)
) -> ScaledFlow:
    """No motion, and this scale over the whole picture."""
    covers = (float(scale_Cqq.shape[1]), float(scale_Cqq.shape[2]))
    field = ScaleField(level=level, scale_Cqq=scale_Cqq, covers=covers)
    return ScaledFlow(np.zeros((*size, 2), np.float32), field)


def saved(tmp_path: Path, level: str, channels: int, name: str = "tiny-flow") -> Path:
    """Weights whose scale field is not 1."""
    net = build_flow_net(name, scale=(level, channels)).net
    with torch.no_grad():
        net.scale.by[level].weight.normal_(std=0.2)  # type: ignore[union-attr, index]
    path = tmp_path / f"{level}.safetensors"
    path.write_bytes(weights_file(net.state_dict(), name))
    return path


@pytest.mark.parametrize("name", SCALED_FLOWS)
def test_an_untrained_field_changes_nothing(name: str) -> None:
    net = build_flow_net(name, scale=("scores", 3)).net
    pair = torch.rand(2, 1, 3, 64, 64, generator=torch.manual_seed(0))
    flows, scale_BCqq = net.levels_and_scale(*pair)  # type: ignore[operator]
    assert torch.equal(flows[-1], net(*pair)) and torch.equal(scale_BCqq, torch.ones(1, 3, 16, 16))


def test_the_field_lies_over_the_picture_at_every_resolution() -> None:
    flow = scaled_flow(ramp(6, 8), "features", (24, 32))
    for rows, columns in ((6, 8), (12, 16), (3, 4)):
        maps = torch.ones(1, rows, columns)
        scaled = FlowWarp("features").carry(maps, flow)
        inner = slice(1, -1)
        torch.testing.assert_close(scaled[:, :, inner], ramp(rows, columns)[:, :, inner])


def test_what_was_padded_has_no_part() -> None:
    whole = ScaleField(
        level="scores", scale_Cqq=ramp(4, 16), covers=(4.0, 8.0)
    )  # the left half is the picture
    (scaled,) = whole.apply([torch.ones(1, 4, 8)], "scores")
    torch.testing.assert_close(scaled, ramp(4, 16)[:, :, :8])


def test_maps_take_their_channels_in_order_and_the_size_map_none() -> None:
    flow = scaled_flow(torch.tensor([2.0, 3.0, 5.0])[:, None, None].expand(3, 6, 8), "features")
    maps = (torch.ones(2, 6, 8), torch.ones(1, 3, 4), torch.zeros(1, 24, 32))
    first, second, size = FlowWarp("features").carry(maps, flow)
    assert first[:, 0, 0].tolist() == [2.0, 3.0] and second[0, 0, 0] == 5.0 and not size.any()


def test_labels_are_never_scaled() -> None:
    labels_HW = np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)
    carried = FlowWarp("labels").carry(labels_HW, scaled_flow(ramp(6, 8)))
    np.testing.assert_array_equal(carried, labels_HW)


def test_a_field_for_something_else_is_refused() -> None:
    carry = FlowWarp("features").carry
    with pytest.raises(ScaleError, match="trained for scores; it cannot multiply features"):
        carry(torch.ones(1, 6, 8), scaled_flow(ramp(6, 8)))
    with pytest.raises(ScaleError, match=r"has 2 channel\(s\), but the features have 3.*another segmenter"):
        carry(torch.ones(3, 6, 8), scaled_flow(ramp(6, 8, 2), "features"))


def test_arithmetic_and_pickles_keep_the_flow_and_lose_the_scale() -> None:
    flow = scaled_flow(ramp(6, 8))
    assert scale_of(flow) is not None and scale_of(flow * 2) is None and scale_of(flow[:4]) is None
    again = pickle.loads(pickle.dumps(flow))
    assert type(again) is np.ndarray and again.shape == flow.shape


@pytest.mark.parametrize(("level", "channels"), [("scores", 3), ("features", 5)])
def test_a_run_multiplies_by_what_training_learned(level: str, channels: int, tmp_path: Path) -> None:
    path = saved(tmp_path, level, channels)
    current, key = texture(45, 70, 1), texture(45, 70, 2)  # no multiple of 32: the pictures are padded
    estimator = NetFlow("tiny-flow", weights=path)
    assert estimator.scale_level == level
    (flow,) = estimator.flow([current], [key])
    plain = NetFlow("tiny-flow").flow([current], [key])[0]
    np.testing.assert_array_equal(flow, plain)
    maps = torch.rand(channels, 45, 70, generator=torch.manual_seed(0))
    run = FlowWarp(level).carry(maps, flow)
    scale = scale_of(flow)
    assert scale is not None
    rows, columns = scale.scale_Cqq.shape[1:]
    assert (rows, columns) == (16, 24) and scale.covers == (45 / 4, 70 / 4)
    grown = torch.nn.functional.interpolate(scale.scale_Cqq[None], scale_factor=4, mode="bilinear")[0]
    warped = FlowWarp(level).carry(maps, plain)
    torch.testing.assert_close(run, warped * grown[:, :45, :70], atol=1e-5, rtol=1e-4)


def test_training_warps_and_scales_as_a_run_does() -> None:
    generator = torch.manual_seed(1)
    maps = [torch.rand(1, 2, 8, 12, generator=generator), torch.rand(1, 1, 4, 6, generator=generator)]
    flow_B2hw = torch.rand(1, 2, 32, 48, generator=generator) * 6.0 - 3.0
    scale_BCqq = torch.rand(1, 3, 8, 12, generator=generator)
    learned = warp_scaled(maps, flow_B2hw, scale_BCqq)
    field = ScaleField(level="features", scale_Cqq=scale_BCqq[0], covers=(8.0, 12.0))
    flow = ScaledFlow(np.ascontiguousarray(flow_B2hw[0].permute(1, 2, 0).numpy()), field)
    run = FlowWarp("features").carry(tuple(m[0] for m in maps), flow)
    for one, other in zip(learned, run, strict=True):
        # Flow is averaged where a run makes it smaller, and sampled where training does: nearly the same.
        assert (one[0] - other).abs().mean() < 0.1 and one.shape[1:] == other.shape


def test_a_net_that_has_none_says_who_has_one() -> None:
    with pytest.raises(SegmenterError, match="'spynet' cannot have a scale field; tiny-flow, flownet_s"):
        build_flow_net("spynet", scale=("scores", 3))


def test_a_field_can_begin_on_weights_that_have_none(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    path.write_bytes(weights_file(build_flow_net("tiny-flow").net.state_dict(), "tiny-flow"))
    built = build_flow_net("tiny-flow", path, scale=("scores", 4))
    assert built.scale_level == "scores" and built.trained
    assert build_flow_net("tiny-flow", path).scale_level is None


def test_chained_flow_has_no_field(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chained flow has no scale field"):
        NetFlow("tiny-flow", weights=saved(tmp_path, "scores", 2), chained=True)
