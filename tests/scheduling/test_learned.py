"""Promise: a trained net decides in the engine as it did on the tables: same scores, same keys.

Why: features, flow, KAR and LKD are computed in two places; a net fed with slightly other numbers than it
was trained on fails silently, by choosing worse keys.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.toy import ThresholdNet, inputs
from tests.episodes.scenes import CLASSES, records
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.assemble import plugin_sources
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.on_tables import summed
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.episodes.table_set import TableSet, join_tables
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy import Policy
from vidseg_core.models.policy_file import (
    OperatingPoint,
    PolicyFacts,
    decision_facts,
    policy_bytes,
    policy_digest,
    read_policy,
)
from vidseg_core.models.policy_trunk import LightTrunk, PolicyError
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.scheduling import Scheduler, build_scheduler
from vidseg_core.scheduling.by_name import threshold_of
from vidseg_core.scheduling.feature_sets import FeatureReader
from vidseg_core.training.policy_loop import new_policy

FRAMES, HORIZON = 36, 9


@pytest.fixture(scope="module")
def table() -> EpisodeTable:
    return built(("flow", "scores"))


def built(sets: tuple[str, ...]) -> EpisodeTable:
    builder = TableBuilder(
        TableOptions(horizon=HORIZON, flow_size=48, min_frames=5),
        net=ChunkedNet(ThresholdNet(), level="labels", batch=1, device="cpu"),
        propagator=build_propagator("flow_warp", level="labels"),
        flow=DisFlow(),
        features=Features(sets),
        classes=CLASSES,
    )
    return builder.build("clip", 0, records(FRAMES), fingerprint={"who": "test"})


@pytest.fixture(scope="module")
def moving_table() -> EpisodeTable:
    return built(("frame_difference", "moving"))


def written(folder: Path, table: EpisodeTable, role: Any, **facts: Any) -> tuple[str, Any]:
    """A net with a mind of its own, as a file."""
    tables = join_tables([table])
    policy = new_policy("light", tables, seed=3)
    net = policy if role == "policy" else DecisionNet("light", tables.feature_names)
    net.trunk.load_state_dict(policy.trunk.state_dict())
    told = PolicyFacts(
        role=role,
        kind="light",
        feature_names=tables.feature_names,
        widths=net.widths,
        fingerprint={"quality": "accuracy"},
        max_interval=HORIZON,
        operating_points=(OperatingPoint(target=25.0, threshold=0.4, aki=24.0, quality=0.8),),
    )
    path = folder / f"{role}.safetensors"
    path.write_bytes(policy_bytes(net, dataclasses.replace(told, **facts)))
    return str(path), net


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("policy", "policy"),
        ("confidence", "decision"),
        ("expected_loss", "decision"),
        ("confidence_sum", "decision"),
    ],
)
def test_the_engine_scores_and_decides_as_the_tables_do(
    name: str, role: str, table: EpisodeTable, tmp_path: Path
) -> None:
    path, net = written(tmp_path, table, role)
    known, scores = join_tables([table]), list[float]()
    if name == "confidence_sum":
        assert isinstance(net, DecisionNet)
        net = summed(known, net)
        known = net.tables
    operator = Operator(known)

    def noted(deviation: np.ndarray, kar: np.ndarray, lkd: np.ndarray) -> np.ndarray:
        scores.extend(net.key_rate(deviation, kar, lkd).tolist())
        return np.array(scores[-1:])

    operator.walk(net.key_rate, np.array([np.inf]))
    seen = operator.walk(noted, np.array([-np.inf]))
    middle = sorted(scores)[len(scores) // 2 :]  # between two scores: a net in a batch rounds otherwise
    threshold = float(middle[0] + next(s for s in middle if s > middle[0] + 1e-5)) / 2
    scores.clear()
    walked = operator.walk(noted, np.array([threshold]))
    engine = Engine(
        ThresholdNet(),
        build_scheduler(name, policy=path, threshold=max(threshold, 0.0)),
        build_propagator("flow_warp", level="labels"),
        sides="one",
        max_interval=HORIZON,
        flow_size=48,
    )
    assert isinstance(engine.scheduler, Scheduler)
    engine.scheduler.threshold = threshold
    state, rows = SegmentState.new(0, "s"), []
    for frame in inputs([record.frame_HW3 for record in records(FRAMES)]):
        rows += engine.step([state], [frame])[0]
    keys = [row.is_key for row in rows]
    assert keys == [True, *walked.keys_SN[:, 0].tolist()]
    assert 1 < sum(keys) < FRAMES and seen.keys_SN.all()
    asked = [row.decision_score for row in rows if np.isfinite(row.decision_score)]
    np.testing.assert_allclose(asked, scores, atol=1e-6)


@pytest.mark.parametrize("inside", [(), ("frame_difference", "distance")])
@pytest.mark.parametrize("sides", ["one", "two"])
def test_the_frame_before_is_the_tables_across_stored_states(
    sides: Any, inside: tuple[str, ...], moving_table: EpisodeTable, tmp_path: Path
) -> None:
    """Motion since the frame before, and its sum since the key, come through a state's bytes; so does what a
    decision net inside expects."""
    tables = join_tables([moving_table])
    decision = expecting(tables, inside) if inside else None
    net = new_policy("paced", tables, seed=0, interval=6.0, decision=decision)
    with torch.no_grad():
        net.last.weight[1] += torch.tensor([0.4, 0.3, -0.7, -1.1, 0.2, 0.0][-net.last.in_features :])
    facts = PolicyFacts(
        role="policy",
        kind="paced",
        feature_names=tables.feature_names,
        widths=net.widths,
        fingerprint={},
        decision=decision_facts(net.decision),
    )
    (tmp_path / "paced.safetensors").write_bytes(policy_bytes(net, facts))
    scheduler = build_scheduler("policy", policy=str(tmp_path / "paced.safetensors"), threshold=0.5)
    assert scheduler.needs_previous and not scheduler.needs_flow
    scores = list[float]()

    def noted(deviation: np.ndarray, kar: np.ndarray, lkd: np.ndarray) -> np.ndarray:
        scores.extend(net.key_rate(deviation, kar, lkd).tolist())
        return np.array(scores[-1:])

    walked = Operator(tables).walk(noted, np.array([0.5]))
    engine = Engine(
        ThresholdNet(),
        scheduler,
        build_propagator("flow_warp", level="labels"),
        sides=sides,
        max_interval=HORIZON,
        flow_size=48,
    )
    state, rows = SegmentState.new(0, "s"), []
    for frame in inputs([record.frame_HW3 for record in records(FRAMES)]):
        rows += engine.step([state], [frame])[0]
        state = SegmentState.from_bytes(state.to_bytes())
    rows += engine.finish([state])[0]
    assert [row.is_key for row in rows] == [True, *walked.keys_SN[:, 0].tolist()]
    assert 4 < sum(row.is_key for row in rows) < FRAMES
    asked = [row.decision_score for row in rows if np.isfinite(row.decision_score)]
    np.testing.assert_allclose(asked, scores, atol=1e-6)


def expecting(tables: TableSet, names: tuple[str, ...]) -> DecisionNet:
    """A decision net on some of the features, of which one expects more to be lost the larger they are."""
    net = DecisionNet("light", names, widths=(1,))
    places = [tables.feature_names.index(name) for name in names]
    known = np.isfinite(tables.quality_RL1)
    net.trunk.set_scaling(torch.from_numpy(tables.deviation_RL1F[known][:, places]))
    with torch.no_grad():
        net.trunk.layers[0].weight.fill_(0.5)  # type: ignore[union-attr,operator]
        net.trunk.layers[0].bias.fill_(2.0)  # type: ignore[union-attr,operator]
        net.last.weight.fill_(-0.1)
        net.last.bias.fill_(0.95)
    return net


def test_what_a_net_inside_reads_reaches_the_policy_as_one_number(moving_table: EpisodeTable) -> None:
    tables = join_tables([moving_table])
    decision = expecting(tables, ("frame_difference", "distance"))
    policy = new_policy("paced", tables, seed=0, interval=6.0, decision=decision)
    with torch.no_grad():
        policy.last.weight[1, :3] = torch.tensor([0.0, 0.0, 1.0])
    deviation = tables.deviation_RL1F[0, 1:4]
    names = tables.feature_names
    loss = 1.0 - decision.confidence(deviation[:, [names.index(name) for name in decision.feature_names]])
    trunk = policy.trunk
    assert isinstance(trunk, LightTrunk)
    logits = np.sign(np.log(loss)) * np.log1p(np.abs(np.log(loss)))
    scaled = (logits - trunk.centre_F[-1].item()) * trunk.scale_F[-1].item()
    steady, lkd = np.zeros(3, np.float32), np.full(3, 6.0, np.float32)
    rate = policy.key_rate(deviation, steady, lkd)
    np.testing.assert_allclose(rate, 1 / (1 + np.exp(-scaled)), atol=1e-5)
    assert np.ptp(rate) > 0.01 and not any(w.requires_grad for w in policy.decision.parameters())  # type: ignore[union-attr]
    with pytest.raises(PolicyError, match="reads the feature 'warp_mean', which is not among those given"):
        new_policy("paced", tables, seed=0, interval=6.0, decision=DecisionNet("light", ["warp_mean"]))


def test_two_sums_need_two_memories(moving_table: EpisodeTable, tmp_path: Path) -> None:
    path, _ = written(tmp_path, moving_table, "decision")
    assert build_scheduler("confidence", policy=path).needs_previous
    with pytest.raises(PolicyError, match="needs that memory for its own sum"):
        build_scheduler("confidence_sum", policy=path, threshold=1.0)


def test_a_file_gives_back_net_and_facts_bit_by_bit(table: EpisodeTable, tmp_path: Path) -> None:
    path, net = written(tmp_path, table, "policy", eta=0.14, seed=7)
    again, facts = read_policy(path)
    assert policy_bytes(again, facts) == Path(path).read_bytes()
    assert (facts.eta, facts.seed, facts.threshold_at(30)) == (0.14, 7, 0.4)
    assert policy_digest(path) == policy_digest(path)
    with torch.no_grad():
        net.last.bias += 1
    Path(path).write_bytes(policy_bytes(net, facts))
    assert policy_digest(path) != policy_digest(written(tmp_path, table, "policy", eta=0.14, seed=7)[0])


def test_a_confidence_is_a_share_of_pixels_or_refused(table: EpisodeTable, tmp_path: Path) -> None:
    """A net that learned mIoU once ran under the name of DVSNet's confidence, where no threshold is 1 - t."""
    path, _ = written(tmp_path, table, "decision", fingerprint={"quality": "labels"})
    for name in ("expected_loss", "confidence_sum"):
        assert build_scheduler(name, policy=path, threshold=0.1).threshold == 0.1
    with pytest.raises(PolicyError, match="tables of --quality labels, but confidence is a share of pixels"):
        build_scheduler("confidence", policy=path)
    older, _ = written(tmp_path, table, "decision", fingerprint={})
    with pytest.raises(PolicyError, match="a quality that the file does not name"):
        build_scheduler("confidence", policy=older)


def test_without_a_threshold_the_files_own_is_taken(table: EpisodeTable, tmp_path: Path) -> None:
    path, _ = written(tmp_path, table, "policy")
    assert build_scheduler("policy", policy=path).threshold == 0.4
    older = {"name": "policy", "policy": path, "threshold": None, "interval": 24, "max_interval": 90}
    assert threshold_of(older) == 0.4, "of a run that named an interval, too, when that was not refused"
    point = OperatingPoint(target=25.0, threshold=1.5, aki=24.0, quality=0.8)
    both, _ = written(tmp_path, table, "decision", summed_points=(point,))
    assert build_scheduler("confidence", policy=both).threshold == 0.4
    assert build_scheduler("confidence_sum", policy=both).threshold == 1.5
    bare, _ = written(tmp_path, table, "decision", operating_points=())
    with pytest.raises(PolicyError, match="no operating points; give a threshold"):
        build_scheduler("confidence", policy=bare)
    assert build_scheduler("confidence", policy=bare, threshold=0.17).threshold == 0.17


def test_files_that_are_something_else_are_named(table: EpisodeTable, tmp_path: Path) -> None:
    path, _ = written(tmp_path, table, "decision")
    with pytest.raises(PolicyError, match="comes from train-decision, but one of train-policy is needed"):
        build_scheduler("policy", policy=path)
    with pytest.raises(PolicyError, match="does not exist"):
        build_scheduler("policy", policy=str(tmp_path / "nothing"))
    (tmp_path / "text.safetensors").write_text("no tensors at all")
    with pytest.raises(PolicyError, match="not a readable safetensors file"):
        read_policy(tmp_path / "text.safetensors")
    longer, _ = written(tmp_path, table, "policy", history=30)
    with pytest.raises(PolicyError, match="history of 30 decisions, the engine keeps 90"):
        build_scheduler("policy", policy=longer)
    net = Policy("dvrl", [f"conv6_{number}" for number in range(8)])
    facts = PolicyFacts(
        role="policy", kind="dvrl", feature_names=net.feature_names, widths=net.widths, fingerprint={}
    )
    (tmp_path / "maps.safetensors").write_bytes(policy_bytes(net, facts))
    with pytest.raises(PolicyError, match="'conv6_0' is not computed while segmenting"):
        build_scheduler("policy", policy=str(tmp_path / "maps.safetensors"))


def test_the_run_is_bound_to_the_policy_not_to_its_place(table: EpisodeTable, tmp_path: Path) -> None:
    def sources(path: str) -> dict[str, str]:
        scheduler = SchedulerConfig(name="policy", policy=path)
        return plugin_sources(SegmentConfig(input=("a",), output="b", segmenter="plain", scheduler=scheduler))

    path, _ = written(tmp_path, table, "policy")
    (tmp_path / "moved.safetensors").write_bytes(Path(path).read_bytes())
    assert sources(path) == {"scheduler.policy.sha256": policy_digest(path)}
    assert sources(str(tmp_path / "moved.safetensors")) == sources(path)
    with pytest.raises(PolicyError, match="does not exist"):
        sources("nowhere.safetensors")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "policy"}, "must name a file of train-policy"),
        ({"name": "confidence"}, "must name a file of train-decision"),
        ({"name": "fixed", "policy": "x"}, "'fixed' reads no such file"),
        ({"name": "policy", "policy": " "}, "must name a file"),
    ],
)
def test_the_option_goes_with_learned_schedulers(options: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        SchedulerConfig(**options)  # type: ignore[arg-type]
    assert error.value.option == "--scheduler.policy"


def test_a_reader_asks_for_flow_only_where_it_is_needed() -> None:
    assert not FeatureReader(["distance", "frame_difference"]).needs_flow
    assert FeatureReader(["distance", "warp_mean"]).needs_flow
