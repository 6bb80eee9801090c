"""Promise: every flow net is a `FlowEstimator` for pictures of any size, whose result for a pair does not
depend on the pairs beside it; weights fit or are refused; the bundled net sees motion where there is some.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.toy import ThresholdNet, inputs, moving_clip, run, texture, truth
from vidseg_core.config.catalogue import NET_FLOWS
from vidseg_core.engine import Engine
from vidseg_core.models.flow import BUNDLED, build_flow_net
from vidseg_core.models.flow.registry import weights_file
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.propagation import FlowEstimator, UnknownNameError, build_flow, build_propagator
from vidseg_core.propagation.net_flow import NetFlow
from vidseg_core.propagation.warp import warp_error
from vidseg_core.scheduling import build_scheduler

SLIM = ("tiny-flow", "flownet2_s", "spynet")
"""The nets that a test may run more than once."""


def moved(shift: int, height: int = 96, width: int = 128, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(current, key) HW3 of a picture that moved to the left: flow (shift, 0)."""
    wide = texture(height, width + shift, seed)
    return np.ascontiguousarray(wide[:, shift:]), np.ascontiguousarray(wide[:, :width])


def test_an_unknown_name_suggests_the_nearest_net() -> None:
    with pytest.raises(SegmenterError, match="unknown flow net 'flownet2s'; did you mean 'flownet2_s'"):
        build_flow_net("flownet2s")


@pytest.mark.parametrize("name", NET_FLOWS)
def test_every_net_gives_flow_of_the_picture_s_size(name: str) -> None:
    estimator = build_flow(name)
    assert isinstance(estimator, FlowEstimator) and estimator.channels == 3
    current, key = texture(45, 70, 1), texture(45, 70, 2)
    (flow_HW2,) = estimator.flow([current], [key])
    assert flow_HW2.shape == (45, 70, 2) and flow_HW2.dtype == np.float32 and np.isfinite(flow_HW2).all()
    assert estimator.flow([], []) == []


@pytest.mark.parametrize("name", SLIM)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_pair_s_flow_does_not_depend_on_the_pairs_beside_it(name: str, batch: int) -> None:
    estimator = NetFlow(name, batch=batch)
    current = [texture(40, 72, seed) for seed in range(4)] + [texture(33, 64, 9)]
    key = [texture(40, 72, seed + 20) for seed in range(4)] + [texture(33, 64, 8)]
    together = estimator.flow(current, key)
    alone = [estimator.flow([a], [b])[0] for a, b in zip(current, key, strict=True)]
    for both, one in zip(together, alone, strict=True):
        np.testing.assert_array_equal(both, one)


@pytest.mark.parametrize(("name", "channels"), [("flownet_s", 1024), ("flownet2_s", 384)])
def test_conv6_is_there_for_the_decision_nets(name: str, channels: int) -> None:
    estimator = NetFlow(name)
    pair_23HW = torch.rand(2, 2, 3, 70, 130, generator=torch.manual_seed(0))
    conv6 = estimator.conv6(pair_23HW[0], pair_23HW[1])
    assert conv6.shape == (2, channels, 2, 3) and estimator.conv6_channels == channels
    assert not conv6.requires_grad and torch.isfinite(conv6).all()


def test_a_net_without_conv6_says_who_has_it() -> None:
    picture = torch.rand(1, 3, 32, 32)
    with pytest.raises(UnknownNameError, match="'spynet' has no conv6 features; flownet2_s"):
        NetFlow("spynet").conv6(picture, picture)


def test_random_weights_follow_the_seed() -> None:
    first, again, other = (build_flow_net("flownet2_s", seed=seed) for seed in (3, 3, 4))
    assert first.digest == again.digest != other.digest and not first.trained


def test_weights_go_round_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    built, file = build_flow_net("spynet", seed=5), tmp_path / "spynet.safetensors"
    file.write_bytes(weights_file(built.net.state_dict(), "spynet", step=1))
    again = build_flow_net("spynet", file)
    assert again.trained and again.digest == built.digest
    with pytest.raises(SegmenterError, match="spynet.safetensors does not fit flow net 'flownet2_s'"):
        build_flow_net("flownet2_s", file)
    with pytest.raises(SegmenterError, match="does not exist"):
        build_flow("raft", weights=str(tmp_path / "nothing.pt"))
    with pytest.raises(UnknownNameError, match="no option 'weights'"):
        build_flow("dis", weights=str(file))


def test_weights_with_code_in_them_are_never_run(tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    torch.save({"weight": Path("x")}, file)
    with pytest.raises(SegmenterError, match="pickled code"):
        build_flow_net("spynet", file)


def test_the_bundled_net_is_small_and_its_card_is_about_it() -> None:
    data = BUNDLED["tiny-flow"].read_bytes()
    assert len(data) <= 6_000_000
    assert hashlib.sha256(data).hexdigest() in BUNDLED["tiny-flow"].with_suffix(".md").read_text()


def test_the_bundled_net_sees_no_motion_where_there_is_none() -> None:
    estimator = build_flow("tiny-flow")
    assert estimator.trained  # type: ignore[attr-defined]
    picture = texture(96, 128, 4)
    (flow_HW2,) = estimator.flow([picture], [picture])
    assert np.abs(flow_HW2).mean() < 0.5


@pytest.mark.parametrize("shift", [3, 8])
def test_the_bundled_net_follows_motion(shift: int) -> None:
    current, key = moved(shift)
    (flow_HW2,) = build_flow("tiny-flow").flow([current], [key])
    inner_2 = np.median(flow_HW2[16:-16, 16:-32].reshape(-1, 2), axis=0)
    np.testing.assert_allclose(inner_2, [shift, 0], atol=1.0)
    assert warp_error(current, key, flow_HW2).mean() < 0.7 * warp_error(current, key, None).mean()


@pytest.mark.parametrize("name", ["dis", *NET_FLOWS])
def test_the_engine_runs_with_every_flow(name: str) -> None:
    clip = moving_clip(3, height=32, width=48)
    engine = Engine(
        ThresholdNet(),
        build_scheduler("fixed", interval=2),
        build_propagator("flow_warp"),
        flow=name,
        flow_size=48,
    )
    rows = run(engine, inputs(clip))
    assert [row.is_key for row in rows] == [True, False, True]
    assert all(row.labels_HW.shape == (32, 48) for row in rows)
    np.testing.assert_array_equal(rows[0].labels_HW, truth(clip[0]))
