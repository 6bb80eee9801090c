"""Promise: a run's flow net, and which weights it has, are part of what the run is; a net without weights is
announced; runs without a flow net keep the fingerprint that they always had.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import PropagationConfig, SegmentConfig
from vidseg_core.engine.assemble import build_engine, build_run_flow, describe_net
from vidseg_core.kit.manifest import fingerprint
from vidseg_core.models.flow import build_flow_net
from vidseg_core.models.flow.registry import weights_file
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.propagation import DisFlow


def config(flow: str, weights: Path | None = None) -> SegmentConfig:
    propagation = PropagationConfig(flow=flow, flow_weights=str(weights) if weights else None)
    return SegmentConfig(input=("a",), output="b", segmenter="plain", propagation=propagation)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "spynet.safetensors"
    path.write_bytes(weights_file(build_flow_net("spynet", seed=9).net.state_dict(), "spynet"))
    return path


def test_the_weights_of_a_flow_net_are_in_the_fingerprint(file: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes(file.read_bytes())
    random, given, again = (describe_net(config("spynet", path)) for path in (None, file, moved))
    assert random.flow_digest != given.flow_digest == again.flow_digest
    fields = config("spynet").fingerprint_fields()
    manifests = [fingerprint(fields, net.digest, net.flow_digest) for net in (random, given, again)]
    assert manifests[0]["fingerprint"] != manifests[1]["fingerprint"] == manifests[2]["fingerprint"]


def test_a_run_without_a_flow_net_has_the_fingerprint_it_always_had() -> None:
    net = describe_net(config("dis"))
    assert net.flow_digest == "" and "flow" not in net.note
    assert fingerprint({}, "x", "") == fingerprint({}, "x")
    assert "flow_weights_sha256" not in fingerprint({}, "x")


def test_a_flow_net_with_random_weights_is_announced(file: Path) -> None:
    assert "flow net 'spynet' has random weights" in describe_net(config("spynet")).note
    assert "random weights" not in describe_net(config("spynet", file)).note
    assert "flow net" not in describe_net(config("tiny-flow")).note


def test_the_engine_gets_the_net_with_its_weights(file: Path) -> None:
    engine = build_engine(config("spynet", file), "cpu")
    assert engine.flows.estimator.digest == build_flow_net("spynet", file).digest  # type: ignore[attr-defined]


def test_weights_for_another_net_or_for_none_are_refused(file: Path) -> None:
    with pytest.raises(SegmenterError, match="does not fit flow net 'tiny-flow'"):
        build_run_flow(config("tiny-flow", file), "cpu")
    with pytest.raises(ConfigError, match="flow_weights: 'dis' is not a net"):
        config("dis", file)
    with pytest.raises(ConfigError, match="flow_weights: flow 'vidseg_core.propagation:DisFlow' takes no"):
        build_run_flow(config("vidseg_core.propagation:DisFlow", file), "cpu")


@pytest.mark.parametrize(("threads", "device", "expected"), [(0, "cpu", 1), (3, "cpu", 3), (5, "cuda", 5)])
def test_dis_works_on_as_many_pairs_at_a_time_as_asked(threads: int, device: str, expected: int) -> None:
    asked = SegmentConfig(input=("a",), output="b", segmenter="plain", flow_threads=threads)
    flow = build_run_flow(asked, device)
    assert isinstance(flow, DisFlow) and flow.threads == expected


def test_on_a_gpu_flow_has_some_threads_by_default() -> None:
    flow = build_run_flow(SegmentConfig(input=("a",), output="b", segmenter="plain"), "cuda")
    assert isinstance(flow, DisFlow) and flow.threads == min(4, os.cpu_count() or 1)
