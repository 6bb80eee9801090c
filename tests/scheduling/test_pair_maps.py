"""Promise: a net that reads whole maps of the flow net decides in the engine as it did on the tables, on the
very same numbers; what it cannot read is said beforehand.

Why: the papers' own nets read the maps of conv6. Here they could be trained and not used, and only their
means were known: a scheduler that learned from other numbers than it is shown chooses worse keys, and nobody
sees why.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import decision_inputs
from tests.engine.toy import ThresholdNet, inputs
from tests.episodes.scenes import CLASSES, records
from vidseg_core.calibration.schedulers import families, keys_at
from vidseg_core.config.catalogue import MAP_SETS
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import EpisodeRecipe, ReinforceRecipe
from vidseg_core.config.train_decision import TrainDecisionConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.episodes.features import CONV6_MEAN, MAP_SHAPES, Conv6, Features, PairMaps, describe_shapes
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.store import write_table
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.episodes.table_set import join_tables
from vidseg_core.episodes.walk import with_features
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy_file import PolicyFacts, policy_bytes, read_policy
from vidseg_core.models.policy_trunk import MapTrunk, PolicyError
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.propagation.net_flow import NetFlow
from vidseg_core.scheduling import build_scheduler
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.pair_maps import MAPS_DIGEST
from vidseg_core.store.objects import open_store
from vidseg_core.training import made_maps
from vidseg_core.training.decision_job import DECISION, DecisionTraining, run_train_decision
from vidseg_core.training.made_maps import maps_at, require_room
from vidseg_core.training.policy_loop import POLICY, PolicyOptions, sample_cells, train_policy
from vidseg_core.training.split import chosen_features

FRAMES, HORIZON, STRIDE, SIZE = 17, 8, 4, 48
FLOW = NetFlow("flownet2_s", seed=5)


def built(
    clip: str = "clip",
    maps: Any = "small",
    sets: tuple[str, ...] = ("flownet_conv6",),
    seed: int = 0,
    stride: int = STRIDE,
) -> EpisodeTable:
    made = PairMaps(sets, FLOW)
    builder = TableBuilder(
        TableOptions(
            horizon=HORIZON, flow_size=SIZE, min_frames=5, key_stride=stride, maps=maps, quality="accuracy"
        ),
        net=ChunkedNet(ThresholdNet(), level="labels", batch=1, device="cpu"),
        propagator=build_propagator("flow_warp", level="labels"),
        flow=FLOW,
        features=Features(sets, Conv6(FLOW) if CONV6_MEAN in sets else None, maps=made),
        classes=CLASSES,
    )
    about = {
        "key_stride": str(stride),
        "quality": "accuracy",
        "propagation.flow": "flownet2_s",
        MAPS_DIGEST: made.digest,
        MAP_SHAPES: describe_shapes(made.shapes),
    }
    return builder.build(clip, 0, records(FRAMES, seed=seed), fingerprint=about)


@pytest.fixture(scope="module")
def table() -> EpisodeTable:
    return built(sets=("flownet_conv6", "key_and_flow"))


class Looks:
    """Keeps the maps that it is shown; every fourth frame is key."""

    needs_flow, avoids_corrupt, threshold = True, True, 0.0
    map_sets = ("flownet_conv6", "key_and_flow")

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, dict[str, np.ndarray]]] = []

    def score(self, deviation: Deviation) -> float:
        maps = {name: deviation.pair_map(name) for name in self.map_sets}
        self.seen.append((deviation.ordinal - deviation.lkd, deviation.lkd, maps))
        return float(deviation.lkd == STRIDE)


def run(scheduler: Any, lanes: int = 1, flow: Any = FLOW) -> list[Any]:
    """The rows of the first of `lanes` segments."""
    engine = Engine(
        ThresholdNet(),
        scheduler,
        build_propagator("flow_warp", level="labels"),
        sides="one",
        max_interval=HORIZON,
        flow=flow,
        flow_size=SIZE,
    )
    states, rows = [SegmentState.new(0, f"s{n}") for n in range(lanes)], []
    clips = [inputs([r.frame_HW3 for r in records(FRAMES, seed=7 * n)]) for n in range(lanes)]
    for frames in zip(*clips, strict=True):
        rows += engine.step(states, frames)[0]
        states = [SegmentState.from_bytes(state.to_bytes()) for state in states]
    return rows


@pytest.mark.parametrize("lanes", [1, 2])
def test_the_engine_hands_out_the_numbers_of_the_table(table: EpisodeTable, lanes: int) -> None:
    scheduler = Looks()
    run(scheduler, lanes)
    own = scheduler.seen[::lanes]
    assert len(own) == FRAMES - 1
    for key, distance, maps in own:
        for name, map_Cgg in maps.items():
            kept_M = table.maps_GL1M[name][key // STRIDE, distance]
            assert np.array_equal(kept_M, map_Cgg.reshape(-1)) and np.ptp(kept_M) > 0
    assert table.maps_GL1M["flownet_conv6"].shape == (5, HORIZON + 1, 384 * 16)


def decision_file(path: Path, table: EpisodeTable) -> tuple[str, DecisionNet]:
    known = join_tables([with_features(table, ("flownet_conv6",))])
    net = DecisionNet("dvrl", known.feature_names, fingerprint=known.fingerprint, widths=(8, 4))
    facts = PolicyFacts(
        role="decision",
        kind="dvrl",
        feature_names=known.feature_names,
        widths=net.widths,
        fingerprint=known.fingerprint,
        max_interval=HORIZON,
    )
    path.write_bytes(policy_bytes(net, facts))
    return str(path), net


def test_a_decision_net_scores_in_the_engine_as_on_the_table(table: EpisodeTable, tmp_path: Path) -> None:
    file, net = decision_file(tmp_path / "net.safetensors", table)
    operator, scores = Operator(join_tables([with_features(table, ("flownet_conv6",))])), list[float]()

    def noted(deviation: np.ndarray, kar: np.ndarray, lkd: np.ndarray) -> np.ndarray:
        scores.extend(net.key_rate(deviation, kar, lkd).tolist())
        return np.array(scores[-1:])

    walked = operator.walk(noted, np.array([np.inf]))
    forced = np.flatnonzero(walked.keys_SN[:, 0]) + 1
    assert forced.tolist() == [8, 16]  # decisions at every fourth frame, a key at the horizon
    rows = run(build_scheduler("confidence", policy=file, threshold=10.0))
    assert [n for n, row in enumerate(rows) if row.is_key] == [0, 8, 16]
    asked = [row.decision_score for n, row in enumerate(rows) if n % 8 == 4]
    np.testing.assert_allclose(asked, scores, atol=1e-6)


def test_the_dial_takes_the_keys_that_the_engine_takes(tmp_path: Path) -> None:
    """Its tables keep the maps of all pairs, without a fingerprint that says their shape."""
    dense = built(maps="kept", stride=1)
    file, _ = decision_file(tmp_path / "net.safetensors", dense)
    bare = dataclasses.replace(dense, fingerprint={})
    (family,) = families([bare], ("confidence",), max_interval=HORIZON, policy=file)
    point = family.points((0.3,))[0]
    keys = keys_at(bare, point.settings, HORIZON)
    rows = run(build_scheduler("confidence", policy=file, threshold=point.settings["threshold"]))
    assert [n for n, row in enumerate(rows) if row.is_key] == keys.tolist() and 2 < len(keys) < FRAMES
    with pytest.raises(EpisodeError, match="maps of flownet_conv5 are too large to be kept"):
        built(maps="kept", sets=("flownet_conv5",))


def test_what_has_no_such_maps_is_refused_beforehand(table: EpisodeTable, tmp_path: Path) -> None:
    file, _ = decision_file(tmp_path / "net.safetensors", table)
    scheduler = build_scheduler("confidence", policy=file, threshold=0.1)
    with pytest.raises(ValueError, match="flownet_conv6 is read from the flow net: take --propagation.flow"):
        run(scheduler, flow=DisFlow())
    with pytest.raises(ValueError, match="learned from maps of another flow net"):
        run(scheduler, flow=NetFlow("flownet2_s", seed=6))
    with pytest.raises(EpisodeError, match="flownet_conv4 is read from the flow net"):
        PairMaps(("flownet_conv4",), DisFlow())
    with pytest.raises(PolicyError, match="light reads numbers, and flownet_conv6 is a map"):
        DecisionNet("light", ("flownet_conv6",))
    with pytest.raises(EpisodeError, match="read alone, not with flownet_conv6, distance"):
        with_features(table, ("flownet_conv6", "distance"))


def trained(tables: list[EpisodeTable], folder: Path, **options: Any) -> tuple[Any, PolicyFacts, str]:
    for each in tables:
        write_table(open_store(folder / "set"), each)
    plain: dict[str, Any] = {"steps": 2, "val_every": 1, "batch": 4, "intervals": (5.0,), "net": "dvrl"}
    plain["output"] = str(folder / "net")
    config = TrainDecisionConfig(tables=str(folder / "set"), **plain | options)
    said = io.StringIO()
    assert run_train_decision(config, Reporter("text", said)) == 0
    return *read_policy(Path(config.output) / DECISION), said.getvalue()


def test_a_decision_net_learns_from_the_maps_of_a_thinned_table(table: EpisodeTable, tmp_path: Path) -> None:
    tables = [built("a"), built("b", seed=3)]
    net, facts, said = trained(tables, tmp_path)
    assert facts.feature_names == ("flownet_conv6",) and "maps of flownet_conv6" in said
    assert isinstance(net.trunk, MapTrunk) and net.trunk.shape == (384, 4, 4)
    assert len(facts.operating_points) == len(facts.summed_points) == 1
    scheduler = build_scheduler("confidence_sum", policy=str(tmp_path / "net" / DECISION))
    assert any(row.decision_score > 0 for row in run(scheduler))


def test_maps_that_no_table_keeps_are_made_from_its_pictures(tmp_path: Path) -> None:
    """conv5 of FlowNet2-s is 12,288 numbers a pair."""
    from vidseg_core.models.flow.registry import weights_file

    weights = tmp_path / "flow.safetensors"
    weights.write_bytes(weights_file(FLOW.net.state_dict(), "flownet2_s"))
    tables = [built("a", sets=("flownet_conv5",)), built("b", seed=3, sets=("flownet_conv5",))]
    assert not tables[0].maps_GL1M and tables[0].views_Thwc is not None
    _, facts, said = trained(tables, tmp_path, flow_weights=str(weights), map_pairs=12, steps=2)
    assert facts.feature_names == ("flownet_conv5",) and not facts.operating_points
    assert "maps of flownet_conv5 are made, of 12 pairs" in said and "no thresholds" in said
    scheduler = build_scheduler("confidence", policy=str(tmp_path / "net" / DECISION), threshold=0.2)
    assert np.isfinite([row.decision_score for row in run(scheduler)][1:4]).all()


def test_tables_keep_conv6_of_either_width_and_what_is_larger_never() -> None:
    """conv6 of FlowNetS is 16,384 numbers a pair, more than conv5 of FlowNet2-s."""
    sets = ("flownet_conv5", "flownet_conv6", "key_and_flow")
    for name in ("flownet2_s", "flownet_s"):
        made = PairMaps(sets, NetFlow(name, seed=5))
        assert made.kept == ("flownet_conv6", "key_and_flow")
    assert made.shapes["flownet_conv6"] == (1024, 4, 4)


def test_what_is_for_maps_that_are_made_is_refused_where_none_are(tmp_path: Path) -> None:
    """A file that does not exist was taken without a word, and went into nothing."""
    tables = [built("a"), built("b", seed=3)]
    for options, says in (
        ({"flow_weights": "none.pt"}, "--flow_weights: is for maps that the tables do not keep"),
        ({"map_pairs": 12}, "--map_pairs: is for maps"),
        ({"flow_weights": "none.pt", "net": "light", "features": ("distance",)}, "--flow_weights: is for"),
    ):
        with pytest.raises(ConfigError, match=says):
            trained(tables, tmp_path, **options)


def test_maps_that_do_not_fit_into_memory_are_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million pairs of conv4 are 98 GB; a set has as many as it has."""
    known = join_tables([built(sets=("flownet_conv4",))])
    learned, size = require_room(known, known, "flownet_conv4", 1_000_000)
    assert learned == np.isfinite(known.quality_RL1[:, 1:]).sum() and size == 2 * learned * 192 * 256 * 2
    assert require_room(known, known, "flownet_conv4", 12) == (12, 15 * 192 * 256 * 2)
    monkeypatch.setattr(made_maps, "MEMORY_SHARE", 1e-9)
    with pytest.raises(
        ConfigError, match=r"--map_pairs: 12 maps of flownet_conv4 take 0.00 GB of memory, but"
    ):
        require_room(known, None, "flownet_conv4", 12)


def test_a_net_is_kept_whatever_its_thresholds_come_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key can be as rare as all --intervals ask for; and a walk that fails after hours of training."""
    tables = [built("a"), built("b", seed=3)]
    _, facts, said = trained(tables, tmp_path, intervals=(50.0,))
    assert not facts.operating_points and not facts.summed_points
    assert "no thresholds, since no key is forced as late as the shortest of --intervals" in said

    def fails(*_: Any) -> Any:
        raise RuntimeError("walks")

    monkeypatch.setattr(DecisionTraining, "_points", fails)
    with pytest.raises(RuntimeError, match="walks"):
        trained(tables, tmp_path, output=str(tmp_path / "again"))
    assert read_policy(tmp_path / "again" / DECISION)[1].role == "decision"


def test_means_are_not_read_for_maps_but_in_old_tables(table: EpisodeTable) -> None:
    """On tables of the means alone `--features flownet_conv6` read the means, without a word."""
    names = ("distance", "conv6_0", "conv6_1")
    shape = (*table.deviation_TL1F.shape[:2], 3)
    means = dataclasses.replace(
        table, maps_GL1M={}, feature_names=names, deviation_TL1F=np.zeros(shape, np.float32)
    )
    old = dataclasses.replace(means, fingerprint={"features": "flow,flownet_conv6"})
    assert chosen_features(old, ("flownet_conv6",)) == ("conv6_0", "conv6_1")
    new = dataclasses.replace(means, fingerprint={"features": "flow,flownet_conv6_mean"})
    assert chosen_features(new, ("flownet_conv6_mean",)) == ("conv6_0", "conv6_1")
    with pytest.raises(EpisodeError, match="no maps of flownet_conv6; build them with --features"):
        with_features(new, chosen_features(new, ("flownet_conv6",)))


def test_inputs_of_a_decision_net_are_compared_on_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """DVSNet Table 2: maps that tables keep were learned from and judged on more pairs than those made."""
    sets = ("flow", "flownet_conv6_mean", *MAP_SETS)
    monkeypatch.setattr(decision_inputs, "flow_of", lambda *_: FLOW)
    table = built(sets=sets)
    clip = decision_inputs.pairs_of(table, "toy", None, 12)
    assert {len(values) for values in clip.seen.values()} == {len(clip.quality_W)} == {12}
    cells_W, _ = sample_cells(join_tables([table]), 0, 12)
    made = maps_at([table], cells_W, ("flownet_conv6",), FLOW)
    assert np.array_equal(made["flownet_conv6"], clip.seen["flownet_conv6"])
    options = SimpleNamespace(folds=2, seeds=1, steps=1, batch=4, widths=[8])
    found = decision_inputs.errors([clip, clip], options)  # type: ignore[arg-type]
    assert set(found) == {"mean", *decision_inputs.INPUTS}
    assert all((percent_SC > 0).all() and percent_SC.shape == (1, 2) for percent_SC in found.values())
    assert "2.2" in next(line for line in decision_inputs.describe(found, ["toy", "toy"]) if "key_" in line)


def test_the_papers_policy_learns_and_runs(tmp_path: Path) -> None:
    known = join_tables([with_features(built(), ("flownet_conv6",))])
    options = PolicyOptions(
        folder=tmp_path,
        kind="dvrl",
        episode=EpisodeRecipe(frames=16, eta=0.5),
        reinforce=ReinforceRecipe(episodes=4, batch=2, trials=2),
        intervals=(5.0,),
    )
    assert train_policy(known, None, options).step == 2
    net, facts = read_policy(tmp_path / POLICY)
    assert facts.kind == "dvrl" and net.trunk.width == 128
    rows = run(build_scheduler("policy", policy=str(tmp_path / POLICY), threshold=0.5))
    assert all(0 <= row.decision_score <= 1 for row in rows if np.isfinite(row.decision_score))


def test_tables_without_the_map_say_which_they_have(table: EpisodeTable) -> None:
    with pytest.raises(EpisodeError, match="no maps of flownet_conv5; they have flownet_conv6, key_and_flow"):
        with_features(table, ("flownet_conv5",))
    bare = dataclasses.replace(table, maps_GL1M={}, fingerprint={})
    with pytest.raises(EpisodeError, match="build them with --features flownet_conv6"):
        with_features(bare, ("flownet_conv6",))
