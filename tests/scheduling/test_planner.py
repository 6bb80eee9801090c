"""Promise: a planner picks the best keys for what it expects, and the engine plans as tables do.

Why: values, pictures and masks are computed in two places; a planner that is shown slightly other numbers
than it has learned from fails silently, by choosing worse keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.engine.toy import ThresholdNet, inputs
from tests.episodes.scenes import CLASSES, records
from vidseg_core.cli.main import main
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.assemble import check_parts
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.on_tables import LookaheadTable
from vidseg_core.episodes.store import open_store, write_table
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.models import planner
from vidseg_core.models.planner import PlannerFacts, PlannerModel, planner_bytes, read_planner
from vidseg_core.models.policy_file import policy_digest
from vidseg_core.models.policy_trunk import PolicyError
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.scheduling import WindowScheduler, build_scheduler
from vidseg_core.scheduling.lookahead_features import LOOKAHEAD_FEATURES, Pairs, distances
from vidseg_core.scheduling.lookahead_values import (
    best_keys,
    best_keys_ahead,
    evened,
    filled,
    one_sided_value,
    sides_inputs,
    two_sided_value,
)
from vidseg_core.scheduling.planner import PlannerCore
from vidseg_core.training.planner_fit import check_table

FRAMES, STRIDE, WINDOW = 44, 2, 12


def built(clip: str, seed: int = 0, frames: int = FRAMES, pictures: bool = True) -> EpisodeTable:
    builder = TableBuilder(
        TableOptions(
            horizon=WINDOW,
            flow_size=48,
            min_frames=5,
            pictures=pictures,
            key_stride=STRIDE,
            two_sided_stride=STRIDE,
        ),
        net=ChunkedNet(ThresholdNet(), level="labels", batch=1, device="cpu"),
        propagator=build_propagator("flow_warp", level="labels"),
        flow=DisFlow(),
        features=Features(("frame_difference",)),
        classes=CLASSES,
    )
    told = {"key_stride": str(STRIDE), "two_sided_stride": str(STRIDE), "horizon": str(WINDOW)}
    return builder.build(clip, 0, records(frames, seed=seed), fingerprint=told)


@pytest.fixture(scope="module")
def table() -> EpisodeTable:
    return built("clip")


def a_model(seed: int = 0) -> PlannerModel:
    """Expects a loss that grows with the distance and differs from pair to pair."""
    rng, count = np.random.default_rng(seed), 2 * len(LOOKAHEAD_FEATURES) + 1
    weights = np.append(rng.normal(0, 0.01, count), 0.1)
    weights[0] = 0.1
    return PlannerModel(
        centre_Q=np.ones(count),
        scale_Q=np.ones(count),
        weight_Q1=weights,
        two_4=np.array([0.3, 0.2, 0.0, 0.01]),
    )


def facts(**told: object) -> PlannerFacts:
    return PlannerFacts(
        **(
            {"feature_names": LOOKAHEAD_FEATURES, "stride": STRIDE, "window": WINDOW, "fingerprint": {}}
            | told
        )  # type: ignore[arg-type]
    )


# --- values and dynamic programming -------------------------------------------------------------------------


def losses(count: int, wide: int, seed: int) -> np.ndarray:
    loss_JE = np.random.default_rng(seed).random((count, wide)) * np.linspace(0, 1, wide)
    loss_JE[:, 0] = np.nan
    return loss_JE


def schedules(count: int, may_J: np.ndarray) -> Iterator[list[int]]:
    free = [j for j in range(1, count) if may_J[j]]
    for size in range(len(free) + 1):
        yield from (list(keys) for keys in combinations(free, size))


def worth(value_JE: np.ndarray, keys: list[int], price: float) -> float:
    ends = [*keys, len(value_JE)]
    starts = [0, *keys]
    lengths = [b - a for a, b in zip(starts, ends, strict=True)]
    if max(lengths) >= value_JE.shape[1]:
        return -np.inf
    return sum(value_JE[a, d] for a, d in zip(starts, lengths, strict=True)) - price * len(starts)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("two_sided", [False, True])
def test_no_schedule_is_worth_more_than_the_one_that_is_found(seed: int, two_sided: bool) -> None:
    count, stride, price = 9, 3, 0.4 + 0.3 * seed
    frames = count * stride - seed % 3
    loss_JE = losses(count, 6, seed)
    weights = np.array([0.2, 0.3, 0.1, 0.0])
    value_JE = (
        two_sided_value(loss_JE, frames, stride, weights)
        if two_sided
        else one_sided_value(loss_JE, frames, stride)
    )
    may_J = np.random.default_rng(seed).random(count) < 0.8
    begins_J = np.append(np.arange(count) * stride, frames)
    keys = best_keys(value_JE, price, may_J, begins_J, 5 * stride)
    best = max(worth(value_JE, option, price) for option in schedules(count, may_J))
    assert worth(value_JE, keys, price) == pytest.approx(best)
    assert all(may_J[key] for key in keys)


def test_one_sided_values_are_sums_over_the_frames() -> None:
    loss_JE = np.array([[np.nan, 0.3, 0.6], [np.nan, 0.9, np.nan], [np.nan, np.nan, np.nan]])
    value_JE = one_sided_value(loss_JE, 8, 3)  # groups of 3, 3 and 2 frames
    own = 0.3 * 2 / 6
    assert value_JE[0, 1] == pytest.approx(3 * (1 - own))
    assert value_JE[0, 2] == pytest.approx(3 * (1 - own) + 3 * 0.7)
    assert value_JE[1, 2] == pytest.approx(3 * (1 - 0.9 / 3) + 2 * 0.1)
    assert value_JE[2, 1] == pytest.approx(2.0)
    assert np.isneginf(value_JE[2, 2]) and np.isneginf(value_JE[:, 0]).all()


def test_a_higher_price_makes_fewer_keys() -> None:
    value_JE = one_sided_value(losses(20, 15, 1), 60, 3)
    begins_J, may_J = np.arange(21) * 3, np.ones(20, bool)
    counts = [len(best_keys(value_JE, price, may_J, begins_J, 45)) for price in (0.01, 0.5, 2.0, 50.0)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    ahead = [len(best_keys_ahead(value_JE, price, may_J, begins_J, 45)) for price in (0.01, 0.5, 2.0, 50.0)]
    assert ahead == sorted(ahead, reverse=True) and ahead[-1] >= 1


def test_an_interval_is_only_too_long_where_no_frame_may_be_key() -> None:
    value_JE = one_sided_value(losses(8, 8, 2), 24, 3)
    may_J = np.array([True, False, False, False, True, True, True, True])
    begins_J = np.arange(9) * 3
    assert best_keys(value_JE, 0.1, may_J, begins_J, 6)[0] == 4
    assert best_keys_ahead(value_JE, 0.1, may_J, begins_J, 6)[0] == 4


def test_losses_are_evened_out_over_the_keys_beside() -> None:
    loss_JE = np.full((4, 4), np.nan)
    for j in range(4):
        loss_JE[j, 1 : 4 - j] = [0.1 * (j + 1) + 0.01 * e for e in range(1, 4 - j)]
    even_JE = evened(loss_JE)
    assert np.array_equal(np.isnan(even_JE), np.isnan(loss_JE))
    # Frame 2 is under keys 0 and 1, frame 3 under 0, 1 and 2.
    assert even_JE[0, 2] == pytest.approx((loss_JE[0, 2] + 0.6 * loss_JE[1, 1]) / 1.6)
    assert even_JE[1, 2] == pytest.approx((loss_JE[1, 2] + 0.6 * (loss_JE[0, 3] + loss_JE[2, 1])) / 2.2)
    assert even_JE[0, 1] == loss_JE[0, 1]


def test_two_sided_plans_see_losses_evened_out_once_and_one_sided_ones_as_they_are() -> None:
    loss_JE = np.array([[np.nan, 0.1, 0.4], [np.nan, 0.2, np.nan], [np.nan, np.nan, np.nan]])
    # Evened out, frame 2 loses 0.325 under key 0 and 0.275 under key 1; a key's own group a third of that.
    left, right = np.array([0.1 / 3, 0.1]), np.array([0.325, 0.275])
    parts = (np.minimum(left, right), left * right / (left + right + 1e-6), left)
    inputs_JES = sides_inputs(loss_JE, 3)
    assert inputs_JES[0, 2] == pytest.approx([np.log1p(10 * part.mean()) for part in parts])
    assert one_sided_value(loss_JE, 9, 3)[1, 2] == pytest.approx(3 * (1 - 0.2 / 3) + 3 * (1 - 0.2))
    assert two_sided_value(loss_JE, 9, 3, np.zeros(4))[1, 2] == pytest.approx(3 * (1 - 0.275 / 3) + 3 * 0.725)


def test_far_pairs_are_thinned_and_filled_in() -> None:
    assert distances(1) == [1] and distances(8) == list(range(1, 9)) and distances(9)[-2:] == [8, 9]
    assert distances(30) == [1, 2, 3, 4, 5, 6, 7, 8, 11, 14, 17, 20, 23, 26, 29, 30]
    loss_JE = losses(20, 16, 0)
    loss_JE[np.add.outer(np.arange(20), np.arange(16)) >= 20] = np.nan
    np.testing.assert_array_equal(filled(loss_JE), loss_JE)  # all known, nothing to do
    thinned_JE = np.full_like(loss_JE, np.nan)
    thinned_JE[:, distances(15)] = loss_JE[:, distances(15)]
    full_JE = filled(thinned_JE)
    np.testing.assert_array_equal(np.isfinite(full_JE), np.isfinite(loss_JE))
    np.testing.assert_array_equal(full_JE[:, distances(15)], loss_JE[:, distances(15)])
    np.testing.assert_allclose(
        full_JE[2, 9:11], loss_JE[2, 8] + np.diff(loss_JE[2, [8, 11]]) * [1 / 3, 2 / 3]
    )
    assert full_JE[10, 9] == loss_JE[10, 8]


def test_pairs_that_are_kept_are_those_that_would_be_made() -> None:
    grays = [cv2.cvtColor(record.frame_HW3, cv2.COLOR_RGB2GRAY) for record in records(6)]
    keeps, forgets = Pairs(most=3), Pairs(most=0)
    for k, i in [(0, 1), (0, 2), (0, 1), (1, 3), (2, 4), (0, 1), (0, 2)]:
        expected = forgets(grays[i].copy(), grays[k], i - k)
        for one, other in zip(keeps(grays[i], grays[k], i - k), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_planner_of_before_plans_no_longer_intervals(tmp_path: Path) -> None:
    path = tmp_path / "planner.safetensors"
    path.write_bytes(planner_bytes(a_model(), facts()))
    assert b'"reach"' not in path.read_bytes() and read_planner(path)[1].longest == WINDOW


# --- engine and tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [WINDOW, 20])
@pytest.mark.parametrize("sides", ["one", "two"])
def test_the_engine_plans_as_the_tables_do(
    table: EpisodeTable, tmp_path: Path, sides: str, window: int
) -> None:
    path = tmp_path / "planner.safetensors"
    known = facts(window=window, reach=WINDOW)
    path.write_bytes(planner_bytes(a_model(), known))
    planned = LookaheadTable(
        PlannerCore(a_model(), known), table, two_sided=sides == "two", max_interval=WINDOW
    )
    found = []
    for price in (0.2, 1.5):
        wanted = planned.keys(price).tolist()
        engine = Engine(
            ThresholdNet(),
            build_scheduler("planner", policy=str(path), threshold=price),
            build_propagator("flow_warp", level="labels"),
            sides=sides,  # type: ignore[arg-type]
            max_interval=WINDOW,
            flow_size=48,
        )
        state, rows = SegmentState.new(0, "s"), []
        for frame in inputs([record.frame_HW3 for record in records(FRAMES)], first=0):
            rows += engine.step([state], [frame])[0]
        rows += engine.finish([state])[0]
        assert [row.frame_index for row in rows if row.is_key] == wanted
        found.append(len(wanted))
    assert found[0] > found[1] > 3


# --- files --------------------------------------------------------------------------------------------------


def test_a_file_gives_back_model_and_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "planner.safetensors"
    path.write_bytes(planner_bytes(a_model(), facts(strength=0.1)))
    model, told = read_planner(path)
    assert planner_bytes(model, told) == path.read_bytes()
    before = policy_digest(path)
    with monkeypatch.context() as later:
        later.setattr(planner, "RULES", planner.RULES + 1)
        assert policy_digest(path) != before, "a run is not continued under other rules"
    path.write_bytes(planner_bytes(a_model(1), told))
    assert policy_digest(path) != before


def test_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    path = tmp_path / "planner.safetensors"
    with pytest.raises(PolicyError, match="does not exist"):
        build_scheduler("planner", policy=str(path))
    path.write_text("no tensors")
    with pytest.raises(PolicyError, match="not a readable safetensors file"):
        build_scheduler("planner", policy=str(path))
    path.write_bytes(planner_bytes(a_model(), facts(feature_names=("other",))))
    with pytest.raises(PolicyError, match="do not fit its 1 features"):
        build_scheduler("planner", policy=str(path))
    path.write_bytes(planner_bytes(a_model(), facts()))
    with pytest.raises(PolicyError, match="no operating points for two-sided"):
        read_planner(path)[1].price_at(25, True)
    two_sided = SegmentConfig(
        input=("a",),
        output="b",
        segmenter="plain",
        scheduler=SchedulerConfig(name="planner", policy=str(path)),
    )
    with pytest.raises(ConfigError, match="two_sided_stride.*or give a threshold"):
        check_parts(two_sided)  # before the run begins, not at the first window
    check_parts(replace(two_sided, scheduler=replace(two_sided.scheduler, threshold=0.1)))
    with pytest.raises(ValueError, match="train-policy"):
        SchedulerConfig(name="policy")


# --- the verb -----------------------------------------------------------------------------------------------


def test_train_planner_writes_a_file_that_segments(
    table: EpisodeTable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets, output = tmp_path / "set", tmp_path / "out"
    for part in (table, built("other", seed=1), built("third", seed=2, frames=30)):
        write_table(open_store(str(sets)), part)
    command = ["train-planner", "--tables", str(sets), "--output", str(output), "--stride", str(STRIDE)]
    command += ["--window", "60", "--intervals", "5", "20", "--folds", "2", "--strengths", "0.1"]
    assert main([*command, "--dry_run"]) == 0 and not output.exists()
    assert main(command) == 0
    written = (output / "planner.safetensors").read_bytes()
    told = read_planner(output / "planner.safetensors")[1]
    said = capsys.readouterr().err
    assert "no price is sought for intervals of 20: the longest is 12 frames" in " ".join(said.split())
    assert (told.window, told.reach, told.longest) == (2 * WINDOW, WINDOW, WINDOW)
    assert {point.sides for point in told.operating_points} == {"one", "two"}
    assert all(2 < point.aki < 12 and 0.3 < point.quality <= 1 for point in told.operating_points)
    assert main(command) == 0  # complete already
    (output / "run.json").unlink()
    assert main(command) == 0
    assert (output / "planner.safetensors").read_bytes() == written
    scheduler = build_scheduler("planner", policy=str(output / "planner.safetensors"))
    assert isinstance(scheduler, WindowScheduler) and scheduler.stride == STRIDE
    monkeypatch.setattr("vidseg_core.training.planner_job.RULES", planner.RULES + 1)
    assert main(command) != 0  # what other rules made is not complete
    assert "rules" in capsys.readouterr().err


def test_tables_that_a_planner_cannot_learn_from_are_named(table: EpisodeTable) -> None:
    with pytest.raises(EpisodeError, match="clip bare, segment 0: holds no small pictures"):
        check_table(built("bare", frames=20, pictures=False), STRIDE)
    with pytest.raises(EpisodeError, match="only every 2 frames may be key there"):
        check_table(table, 3)
    with pytest.raises(EpisodeError, match=r"a horizon of 12 frame\(s\), less than twice --stride 8"):
        check_table(table, 8)
