"""Promise: the dial takes the propagator that is best on the sample at equal cost, whatever it is; it never
takes more keys than the budget for a cheap one, and a propagator that the user named is not its to choose.

Why: with an expensive net a better propagator at fewer keys wins, with a cheap one more keys do, and on some
footage nothing is better than leaving masks where they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidseg_core.calibration.calibrate import _ask, check_ask, stored_config, with_choice
from vidseg_core.calibration.choice import Choice, Valued, conclude, describe
from vidseg_core.calibration.evidence import schedule_quality, two_sided_values
from vidseg_core.calibration.schedulers import FixedFamily, Point
from vidseg_core.calibration.tasks import fill_ops
from vidseg_core.calibration.ways import (
    Prices,
    Reads,
    affordable_ways,
    choose_way,
    least_gain,
    other_ways,
    way_values,
)
from vidseg_core.config.cli import parse
from vidseg_core.config.dial import CalibrationConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.datasets.records import Record
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.episodes.walk import walk
from vidseg_core.kit.claim import FingerprintMismatch
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.propagation.propagators import FlowWarp, propagator_of
from vidseg_core.store.keys import CALIBRATION_KEY
from vidseg_core.store.objects import open_store

EXPENSIVE = 1e11
"""Operations of a net of some seconds a frame."""
FRAMES, H, W = 24, 48, 64
CLIPS = 2
"""That are alike."""


def config(*propagators: str, **options: Any) -> SegmentConfig:
    calibration = CalibrationConfig(propagators=propagators)
    asked: dict[str, Any] = {"budget": 0.125, "calibration": calibration} | options
    return SegmentConfig(input=("x",), output="y", segmenter="plain", **asked)


def clip(*, moves: bool) -> list[Record]:
    """A textured square; `moves`: with its label, else its label stays and the texture drifts below it."""
    texture_HW3 = np.random.default_rng(0).integers(0, 256, (H, 3 * W, 3), dtype=np.uint8)
    records = []
    for number in range(FRAMES):
        frame_HW3 = np.full((H, W, 3), 90, np.uint8) if moves else texture_HW3[:, number : number + W].copy()
        labels_HW = np.zeros((H, W), np.uint8)
        left = 4 + number if moves else 20
        labels_HW[12:36, left : left + 20] = 1
        if moves:
            frame_HW3[12:36, left : left + 20] = texture_HW3[:24, :20]
        records.append(Record(video_id="", frame_index=number, frame_HW3=frame_HW3, labels_HW=labels_HW))
    return records


def builder() -> TableBuilder:
    """Labels stand in for the net."""
    return TableBuilder(
        TableOptions(horizon=FRAMES - 1, flow_size=64, min_frames=8),
        net=None,
        propagator=build_propagator("flow_warp"),
        flow=DisFlow(),
        features=Features(("frame_difference",)),
        classes=2,
        sides="two",
        shows="colours",
    )


def dialled(asked: SegmentConfig, records: Sequence[Record], net: float = EXPENSIVE) -> Choice:
    """Even keys under flow first, then the other propagators, as the dial does."""
    made = builder()
    seen = made.see(records)
    even = FixedFamily([made.tabulate("clip", 0, seen)], FRAMES - 1)

    def value(way: PropagationConfig, points: Sequence[Point]) -> list[Valued]:
        other = made if way == asked.propagation else made.with_propagator(propagator_of(way))
        qualities = [schedule_quality(other, seen, point.keys[0], two_sided=True) for point in points]
        return way_values([qualities] * CLIPS, points)

    (first,) = value(asked.propagation, [even.at(8)])
    frames = [FRAMES] * CLIPS
    choice = conclude(first, asked={"budget": 0.125}, frames=frames, seed=0)
    return choose_way(asked, choice, Prices(net), [even], even, value, frames, lambda text: None)


def test_where_things_move_flow_stays_and_where_they_do_not_masks_are_left_where_they_are() -> None:
    moving, still = (dialled(config("copy"), clip(moves=moves)) for moves in (True, False))
    assert moving.propagation == {} and still.propagation == {"name": "copy"}
    assert still.fidelity == 100.0 and still.ways[0]["fidelity"] < 100.0
    for choice in (moving, still):
        assert [row["propagator"] for row in choice.ways] == ["flow_warp", "copy"]
        assert all(row["key_share"] <= 0.125 for row in choice.ways)
        assert "copy" in describe(choice)
    assert with_choice(config("copy"), still).propagation.name == "copy"


def test_a_better_propagator_gets_fewer_keys_so_that_it_costs_no_more() -> None:
    choice = dialled(config("match"), clip(moves=True))
    flow, match = choice.ways
    assert match["key_share"] < flow["key_share"] and match["frame_gflop"] <= flow["frame_gflop"]


@pytest.mark.parametrize("wins", ["flow_warp", "match", "copy"])
def test_the_best_at_equal_cost_is_taken_and_told_with_its_evidence(wins: str) -> None:
    worth = {"flow_warp": 0.8, "copy": 0.7, "match": 0.75} | {wins: 0.9}
    asked = config()
    settings = {"name": "fixed", "interval": 8}
    point = Point(family="fixed", settings=settings, keys=(np.array([0, 8]),), share=0.125)
    first = Valued(point=point, quality_C=np.full(CLIPS, worth["flow_warp"]))
    frames = [16] * CLIPS
    choice = conclude(first, asked={"budget": 0.125}, frames=frames, seed=0)
    even = _Even()

    def value(way: PropagationConfig, points: Sequence[Point]) -> list[Valued]:
        return [Valued(point=each, quality_C=np.full(CLIPS, worth[way.name])) for each in points]

    found = choose_way(asked, choice, Prices(EXPENSIVE), [], even, value, frames, lambda text: None)
    assert found.propagation.get("name", "flow_warp") == wins and found.fidelity == pytest.approx(90.0)
    assert {row["propagator"]: round(row["fidelity"]) for row in found.ways} == {
        name: round(100 * each) for name, each in worth.items()
    }
    again = with_choice(asked, Choice(**found.to_json())).propagation
    assert again.name == wins and not again.checks_itself


def test_a_gain_that_may_be_chance_on_the_sample_changes_nothing_and_that_is_said() -> None:
    """Any gain did, on two clips too."""
    asked, even, said = config("copy"), _Even(), list[str]()

    def found(gains: Sequence[float]) -> Choice:
        quality_C = 0.8 + np.zeros(len(gains))
        first = Valued(point=even.at(8), quality_C=quality_C)
        frames = [16] * len(gains)
        choice = conclude(first, asked={"budget": 0.125}, frames=frames, seed=0)

        def value(way: PropagationConfig, points: Sequence[Point]) -> list[Valued]:
            return [Valued(point=each, quality_C=quality_C + gains) for each in points]

        return choose_way(asked, choice, Prices(EXPENSIVE), [], even, value, frames, said.append)

    assert not found([0.001, 0.03]).propagation
    assert said == ["copy is 1.55 points better, which may be chance on 2 clips: not taken"]
    assert not found([0.03, -0.01, 0.02, -0.02, 0.01, 0.01]).propagation
    assert found([0.03, 0.01, 0.02, 0.02, 0.01, 0.01]).propagation == {"name": "copy"}
    assert not found([0.05]).propagation and len(said) == 3


@given(st.lists(st.floats(-50.0, 50.0), min_size=2, max_size=40), st.floats(0.0, 10.0))
def test_the_least_gain_is_below_the_mean_and_moves_with_it(gains: list[float], more: float) -> None:
    gains_C = np.array(gains)
    least = least_gain(gains_C)
    assert least <= gains_C.mean() + 1e-9
    assert least_gain(gains_C + more) == pytest.approx(least + more, abs=1e-6)


def test_what_keeps_more_of_a_segment_than_is_allowed_is_not_tried() -> None:
    """It was chosen, and then the run was refused."""
    said: list[str] = []
    carrier = PropagationConfig(flow_size=512)
    for state_mb, names in ((256, ["copy", "match"]), (1, ["copy"])):
        asked = config(state_mb=state_mb, propagation=carrier, working_size="512")
        prices = Prices(EXPENSIVE)
        ways = affordable_ways(asked, prices, prices.of(0.125, carrier), said.append)
        assert [way.name for way in ways] == names
    assert len(said) == 1 and "--state_mb: is 1" in said[0]


def test_where_regions_are_tried_too_propagators_are_as_ever() -> None:
    """None was: grids without a dial were what a run would not begin with."""
    asked = config(calibration=CalibrationConfig(grids=("2x2",)))
    prices, said = Prices(EXPENSIVE), list[str]()
    ways = affordable_ways(asked, prices, prices.of(0.125, asked.propagation), said.append)
    assert [way.name for way in ways] == ["copy", "match"] and not said


def test_what_may_wait_is_that_of_the_longest_interval_of_the_sample() -> None:
    asked, even = config("match", state_mb=20, working_size="512"), _Even()
    first = Valued(point=even.at(8), quality_C=np.full(2, 0.8))
    choice = conclude(first, asked={"budget": 0.125}, frames=[16] * 2, seed=0)

    def value(way: PropagationConfig, points: Sequence[Point]) -> list[Valued]:
        return [Valued(point=each, quality_C=np.full(2, 0.9)) for each in points]

    def taken(longest: int) -> str | None:
        known = replace(choice, max_interval=longest)
        found = choose_way(asked, known, Prices(EXPENSIVE), [], even, value, [16] * 2, lambda text: None)
        return found.propagation.get("name")

    assert (taken(90), taken(30)) == (None, "match")


class _Even(FixedFamily):
    def __init__(self) -> None:
        super().__init__([], 60)

    def at(self, interval: int) -> Point:
        settings = {"name": "fixed", "interval": interval}
        return Point(family="fixed", settings=settings, keys=(np.array([0]),), share=1 / interval)


def test_for_a_limit_of_points_the_cheapest_that_keeps_it_is_taken() -> None:
    """Under flow a key every 4 frames is needed, under match fewer are enough, and copying loses too much."""
    asked = config(budget=None, max_drop=2.0)
    point = Point(family="fixed", settings={"name": "fixed", "interval": 4}, keys=(), share=0.25)
    first = Valued(point=point, quality_C=np.full(10, 0.985))
    choice = conclude(first, asked={"max_drop": 2.0}, frames=[16] * 10, seed=0)

    def value(way: PropagationConfig, points: Sequence[Point]) -> list[Valued]:
        lost = {"match": 0.0012, "copy": 0.02}[way.name]
        return [Valued(point=each, quality_C=np.full(10, 1 - lost / each.share)) for each in points]

    found = choose_way(asked, choice, Prices(EXPENSIVE), [], _Even(), value, [16] * 10, lambda text: None)
    assert found.propagation["name"] == "match" and found.key_share < 0.25
    rows = {row["propagator"]: row for row in found.ways}
    assert (
        rows["copy"]["fidelity"] is None and rows["match"]["frame_gflop"] < rows["flow_warp"]["frame_gflop"]
    )


@given(
    net=st.floats(1e9, 1e12),
    share=st.floats(0.01, 0.5),
    name=st.sampled_from(["copy", "flow_warp", "match"]),
    sides=st.sampled_from(["one", "two"]),
)
def test_what_is_affordable_costs_no_more(net: float, share: float, name: str, sides: Any) -> None:
    prices, base = Prices(net), PropagationConfig(sides=sides)
    way = PropagationConfig(name=name, sides=sides)
    cost = prices.of(share, base)
    affordable = prices.affordable(cost, way)
    if affordable > 0:
        assert prices.of(affordable, way) <= cost * (1 + 1e-9)
    if name == "match":
        assert affordable < share


def test_a_cheap_net_leaves_nothing_for_an_expensive_propagator_and_that_is_said() -> None:
    said: list[str] = []
    asked, prices = config(), Prices(1e9)
    ways = affordable_ways(asked, prices, prices.of(0.125, asked.propagation), said.append)
    assert [way.name for way in ways] == ["copy"]
    assert len(said) == 1 and said[0].startswith("match is not tried")
    unknown = affordable_ways(asked, Prices(0.0), 0.0, said.append)
    assert [way.name for way in unknown] == ["copy"] and "not known" in said[1]


def test_where_no_schedule_has_so_few_keys_nothing_else_is_tried() -> None:
    """A forced key every 16 frames, where the budget would want one in 50."""
    asked = config("copy", budget=0.02)
    point = Point(family="fixed", settings={"name": "fixed", "interval": 16}, keys=(), share=1 / 16)
    first = Valued(point=point, quality_C=np.array([0.5]))
    choice = conclude(first, asked={"budget": 0.02}, frames=[16], seed=0, note="the budget is exceeded")

    def value(way: PropagationConfig, points: Sequence[Point]) -> list[Valued]:
        raise AssertionError("nothing fits")

    even = _Even()
    even.longest = 16
    found = choose_way(asked, choice, Prices(EXPENSIVE), [], even, value, [16], lambda text: None)
    assert found.settings == choice.settings and found.note == choice.note and not found.propagation


def test_who_names_a_propagator_has_it(tmp_path: Path) -> None:
    words = ["--input", "x", "--output", "y", "--segmenter", "plain", "--budget", "0.1"]

    def others(*more: str) -> list[str]:
        return [way.name for way in other_ways(parse("segment", SegmentConfig, [*words, *more]))]

    assert others() == ["copy", "match"]
    assert others("--propagation.name", "flow_warp") == others("--propagation.name", "copy") == []
    assert others("--propagation.name", "copy", "--calibration.propagators", "match") == ["match"]
    assert others("--propagation.level", "scores") == ["copy"]
    assert others("--propagation.latency", "low", "--propagation.sides", "one") == []
    file = tmp_path / "run.yaml"
    file.write_text("propagation: {name: flow_warp}\n", encoding="utf-8")
    assert others("--config", str(file)) == []
    again = parse("segment", SegmentConfig, [*words, "--propagation.name", "flow_warp"])
    assert "propagators" in again.to_yaml() and replace(again, seed=1).calibration == again.calibration
    with pytest.raises(ConfigError, match=r"--calibration\.propagators: match: .*must be labels"):
        other_ways(config("match", propagation=PropagationConfig(level="scores")))
    with pytest.raises(ConfigError, match="cannot try 'mach' .did you mean 'match'"):
        CalibrationConfig(propagators=("mach",))


def _by_drop(asked: SegmentConfig, first: Valued, lost: dict[str, float], prices: Prices) -> Choice:
    """The choice where a propagator loses so much for each frame between keys."""
    clips = len(first.quality_C)
    choice = conclude(first, asked={"max_drop": 2.0}, frames=[16] * clips, seed=0)

    def value(way: PropagationConfig, points: Sequence[Point]) -> list[Valued]:
        return [Valued(point=p, quality_C=np.full(clips, 1 - lost[way.name] / p.share)) for p in points]

    return choose_way(asked, choice, prices, [], _Even(), value, [16] * clips, lambda text: None)


def _even_point(interval: int, clips: int = 10) -> Valued:
    return Valued(point=_Even().at(interval), quality_C=np.full(clips, 0.985))


def test_beside_a_net_of_unknown_cost_a_cheap_propagator_gets_no_more_keys() -> None:
    """Copying kept the promise with four times the keys, and was taken since flow alone was counted."""
    asked = config("copy", budget=None, max_drop=2.0)
    found = _by_drop(asked, _even_point(12), {"copy": 0.005}, Prices(0.0))
    assert not found.propagation and found.key_share == 1 / 12
    found = _by_drop(asked, _even_point(12), {"copy": 0.0005}, Prices(0.0))
    assert found.propagation == {"name": "copy"} and found.key_share < 1 / 12


def test_few_clips_promise_nothing_under_another_propagator_either() -> None:
    asked = config("copy", budget=None, max_drop=2.0)
    found = _by_drop(asked, _even_point(4, clips=3), {"copy": 0.0005}, Prices(EXPENSIVE))
    even = {"interval": 4, "key_share": 0.25, "fidelity": 98.0, "worst_drop": 1.5}
    other = replace(found, settings={"name": "warp_error", "threshold": 1.0}, even=even)
    assert "fixed, interval 4 under flow_warp (25.0 % keys)" in describe(other)
    assert found.propagation == {"name": "copy"}
    assert "3 clips are too few for a promise" in found.note and not found.can_keep


def test_even_keys_are_left_out_where_other_schedulers_were_named() -> None:
    calibration = CalibrationConfig(propagators=("copy",), schedulers=("warp_error",))
    asked = config(budget=None, max_drop=2.0, calibration=calibration)
    assert not _by_drop(asked, _even_point(4), {"copy": 0.0005}, Prices(EXPENSIVE)).propagation
    named = replace(asked, calibration=replace(calibration, schedulers=("warp_error", "fixed")))
    assert _by_drop(named, _even_point(4), {"copy": 0.0005}, Prices(EXPENSIVE)).propagation


class _Warp(_Even):
    name = "warp_error"

    def points(self, shares: Sequence[float]) -> list[Point]:
        settings = {"name": self.name, "threshold": 1.0}
        return [Point(family=self.name, settings=settings, keys=(), share=share) for share in shares]


def test_flow_that_the_scheduler_reads_is_paid_for_under_copy_too() -> None:
    """Saving one of two flows of .2 GFLOP buys keys of a cheap net; saving none buys nothing."""
    calibration = CalibrationConfig(propagators=("copy",), schedulers=("warp_error",))
    point = Point(family="warp_error", settings={"name": "warp_error", "threshold": 1.0}, keys=(), share=0.25)
    first = Valued(point=point, quality_C=np.full(10, 0.985))
    for sides, keys in (("two", True), ("one", False)):
        carrier = PropagationConfig(sides=sides)  # type: ignore[arg-type]
        asked = config(budget=None, max_drop=2.0, calibration=calibration, propagation=carrier)
        shares: list[float] = []

        def value(
            way: PropagationConfig, points: Sequence[Point], seen: list[float] = shares
        ) -> list[Valued]:
            seen += [point.share for point in points]
            return [Valued(point=point, quality_C=np.full(10, 0.9)) for point in points]

        choice = conclude(first, asked={"max_drop": 2.0}, frames=[16] * 10, seed=0)
        choose_way(asked, choice, Prices(1e9), [_Warp()], _Even(), value, [16] * 10, lambda text: None)
        assert (max(shares) > 0.25 + 1e-9) == keys


def test_a_flow_net_costs_what_it_takes() -> None:
    carrier = PropagationConfig(flow="raft")
    assert Prices(1e11, flow=5e10).frame(carrier) == 1e11
    assert Prices(1e11, flow=5e10).frame(replace(carrier, name="copy")) == 0.0


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_schedules_with_a_delay_are_worth_what_tables_say(delay: int) -> None:
    """Others were valued as if the net's result came at once, and so they won."""
    made = TableBuilder(
        TableOptions(horizon=FRAMES, flow_size=64, min_frames=8),
        net=None,
        propagator=build_propagator("flow_warp"),
        flow=DisFlow(),
        features=Features(("frame_difference",)),
        classes=2,
    )
    seen = made.see(clip(moves=True))
    table = made.tabulate("clip", 0, seen)
    for keys in ([0, 8, 16], [0, 3, 4, 5, 12], [0]):
        mean = schedule_quality(made, seen, np.array(keys), two_sided=False, delay=delay)
        assert mean == pytest.approx(walk(table, keys, delay=delay).mean)


def test_what_is_made_of_keys_is_not_kept_with_the_frames() -> None:
    """A memory net makes megabytes of each key, and of a table every frame is one."""

    class Makes(FlowWarp):
        def keep(self, key: Any) -> Any:
            return np.zeros(8)

        def fill(self, gaps: Any) -> Any:
            for gap in gaps:
                assert gap.left.kept is not None
                yield from [gap.left.carried] * len(gap.frames)

    made = builder().with_propagator(Makes())
    seen = made.see(clip(moves=True))
    made.tabulate("clip", 0, seen)
    assert all(key.kept is None for key in seen.keys)
    schedule_quality(made, seen, np.array([0, 8, 16]), two_sided=True)
    assert two_sided_values(made, seen, [(0, 8), (2, 5)])
    assert all(key.kept is None for key in seen.keys)


def test_what_a_scheduler_reads_is_paid_under_any_propagator() -> None:
    """`low_deviation` has N's first layers run on every frame: beside flow it was as cheap as even keys."""
    flow, reads = PropagationConfig(), Reads(low=True)
    prices = Prices(1e11, own=1e9, low=2e10, expects=1e8)
    assert prices.frame(flow, reads=reads) == prices.frame(flow) + 2e10 + 1e8
    assert prices.affordable(prices.of(0.4, flow), flow, reads=reads) == pytest.approx(0.24, abs=0.01)
    shares = replace(prices, fills_low=True)  # lvs reads them too, and they are made once
    lvs = replace(flow, name="tests:Lvs")
    assert shares.frame(lvs) == prices.frame(lvs) + 2e10
    assert shares.frame(lvs, reads=reads) == shares.frame(lvs) + 1e8
    assert shares.frame(flow) == prices.frame(flow)


def test_an_older_run_goes_on_where_its_propagator_is_named(tmp_path: Path) -> None:
    """Versions that chose no propagator did not note whether it had been named."""
    words = ["--input", "x", "--output", str(tmp_path), "--segmenter", "plain", "--budget", "0.1"]
    plain = parse("segment", SegmentConfig, words)
    named = parse("segment", SegmentConfig, [*words, "--propagation.name", "flow_warp"])
    store = open_store(str(tmp_path))
    point = _Even().at(10)
    choice = conclude(_even_point(10), asked={"budget": 0.1}, frames=[16] * 10, seed=0).to_json()
    older = {name: value for name, value in choice.items() if name not in ("ways", "propagation")}
    found = {"asked_for": _ask(plain, [], "n"), "choice": older}
    store.put(CALIBRATION_KEY, json.dumps(found).encode())
    for asked in (plain, named):
        check_ask(asked, [], store, "n")
        assert stored_config(asked, store)[0].scheduler.interval == point.settings["interval"]
    store.put(CALIBRATION_KEY, json.dumps(found | {"choice": choice}).encode())
    with pytest.raises(FingerprintMismatch, match="propagators"):
        check_ask(named, [], store, "n")


def test_what_fills_gaps_is_counted_without_flow_and_without_what_is_made_of_a_key() -> None:
    """Beside `sam2:...`, whose cost the catalogue does not know, flow got no more keys than that."""

    class Multiplies(FlowWarp):
        def keep(self, key: Any) -> Any:
            return torch.zeros(64, 64) @ torch.zeros(64, 64)

        def fill(self, gaps: Any) -> Any:
            for gap in gaps:
                assert (gap.left.kept @ torch.zeros(64, 1)).shape == (64, 1)
                yield from [gap.left.carried] * len(gap.frames)

    made = builder().with_propagator(Multiplies())
    seen = made.see(clip(moves=True))
    assert fill_ops(made, seen) == 2 * 64 * 64 and seen.keys[0].kept is None
    assert fill_ops(builder(), seen) == 0.0
    prices, flow = Prices(1e11, own=3e10), PropagationConfig()
    tracked = replace(flow, name="sam2:x")
    assert prices.frame(tracked) == prices.frame(flow) + 3e10
    assert prices.affordable(prices.of(0.1, tracked), flow) > 0.3
