"""Promise: the dial takes regions with keys of their own only where they win at equal cost by more than
noise: what a key of a region counts is what the net takes on its crop, and what crops lose at their borders
is in their quality.

Why: by pixels alone small crops look cheap, and by their own masks borderless; a run with regions was then
slower and worse than one without.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.engine.toy import ThresholdNet
from tests.pipeline.conftest import small_config
from tests.scheduling.test_learned_regions import planner_of
from vidseg_core.calibration import dial
from vidseg_core.calibration.audit import outcome
from vidseg_core.calibration.calibrate import _ask, _look_and_choose, at_hand, with_choice
from vidseg_core.calibration.choice import Choice, Valued, conclude, describe, unseen
from vidseg_core.calibration.crop_cost import crop_costs
from vidseg_core.calibration.grids import GridTrial, Pricing, choose_grid, names_for
from vidseg_core.calibration.schedulers import FixedFamily, Point, long_run_share
from vidseg_core.calibration.tasks import LookedByRegion, SampleTasks, Way
from vidseg_core.calibration.ways import Prices, Reads
from vidseg_core.config.dial import CalibrationConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.trial import usual_pixels
from vidseg_core.episodes.sources import Unit
from vidseg_core.kit.progress import Reporter
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.plan import expand_inputs
from vidseg_core.scheduling.split import furthest_for
from vidseg_core.store import open_run

CUT = RegionsConfig(grid="2x2", overlap=8)
FRAMES = [40] * 10
LOOKS = Reads(flow=True)
PRICES = Prices(1e12)
"""So expensive a net that flow costs nothing beside it."""


def config(**options: Any) -> SegmentConfig:
    plain: dict[str, Any] = {"input": ("a",), "output": "b", "segmenter": "plain", "budget": 0.1}
    plain |= {"calibration": CalibrationConfig(grids=("2x2",), schedulers=("fixed",))}
    plain["regions"] = RegionsConfig(overlap=8)
    return SegmentConfig(**plain | options)


def whole(asked: SegmentConfig, worth: Any, share: float = 0.1) -> Choice:
    """A choice of even keys that is worth so much, by clip."""
    settings = {"name": "fixed", "interval": round(1 / share)}
    valued = Valued(
        point=Point(family="fixed", settings=settings, keys=(), share=share), quality_C=np.asarray(worth)
    )
    said = {"max_drop": asked.max_drop or 0.0} if asked.budget is None else {"budget": asked.budget}
    return conclude(valued, asked=said, frames=FRAMES, seed=0)


class Trial:
    """A grid whose crops cost so much, and whose settings are worth so much."""

    problem, pixels, reads = "", 1.2, LOOKS

    def __init__(self, found: Choice, costs: float = 1.3) -> None:
        self._found, self.parts, self.budgets = found, (costs / 4,) * 4, []

    def search(self, budget: float | None, frames: Any, net_s: float) -> Choice:
        self.budgets.append(budget)
        return self._found


def chosen(asked: SegmentConfig, first: Choice, trial: Any) -> Choice:
    return choose_grid(asked, first, PRICES, lambda way: trial, FRAMES, lambda text: None)


RNG = np.random.default_rng(0)
BASE = 0.9 + 0.02 * RNG.standard_normal(10)


@pytest.mark.parametrize(
    ("gain", "wins"), [(0.01, True), (0.0, False), (0.01 * np.array([9, -7] * 5), False), (-0.01, False)]
)
def test_a_grid_is_taken_where_its_gain_is_beyond_noise(gain: Any, wins: bool) -> None:
    asked = config()
    trial = Trial(whole(asked, BASE + gain))
    found = chosen(asked, whole(asked, BASE), trial)
    assert trial.budgets == [pytest.approx(0.1, rel=1e-3)]
    assert found.regions == ({"grid": "2x2", "overlap": 8} if wins else {})
    assert [row["grid"] for row in found.grids] == ["1x1", "2x2"]
    assert "2x2" in describe(found) and found.grids[1]["crops"] == 1.3
    run = with_choice(asked, Choice(**found.to_json()))
    assert run.regions.grid == ("2x2" if wins else "1x1") and not run.calibration.grids


def test_few_clips_that_agree_by_chance_are_no_gain_beyond_noise() -> None:
    """Of three clips drawn again and again all are above 0 as soon as each is."""
    asked, few = config(), BASE[:3]
    for gains, wins in (([0.001, 0.03, 0.002], False), ([0.012, 0.01, 0.011], True)):
        found = chosen(asked, whole(asked, few), Trial(whole(asked, few + np.array(gains))))
        assert bool(found.regions) == wins and found.grids[1]["difference"][0] > 0


def test_beside_a_net_that_torch_cannot_count_a_grid_must_save_keys() -> None:
    """More keys leave less to carry, which was all that was counted."""
    asked = config(budget=None, max_drop=5.0)
    for share, wins in ((0.5, False), (0.098, False), (0.09, True)):
        trial: Any = Trial(whole(asked, BASE, share))
        found = choose_grid(
            asked, whole(asked, BASE), Prices(0.0), lambda way, t=trial: t, FRAMES, lambda text: None
        )
        assert bool(found.regions) == wins


def test_with_a_limit_of_points_a_grid_must_save() -> None:
    asked = config(budget=None, max_drop=5.0)
    first = whole(asked, BASE)
    for share, wins in ((0.09, True), (0.098, False)):
        assert bool(chosen(asked, first, Trial(whole(asked, BASE, share))).regions) == wins


def test_a_grid_gets_the_share_that_costs_no_more() -> None:
    """Flow on crops, overlap counted, is paid from the keys."""
    prices, carrier = Prices(1e10), PropagationConfig()
    cost = prices.of(0.1, carrier)
    pricing = Pricing(prices, carrier, crops=1.5, pixels=1.2)
    share = pricing.affordable(cost, reads=LOOKS)
    assert share < 0.1 and pricing.of(share, reads=LOOKS) == pytest.approx(cost)
    asked, said = config(), list[str]()
    trial: Any = Trial(whole(asked, BASE))
    choose_grid(asked, whole(asked, BASE), Prices(4e8), lambda way: trial, FRAMES, said.append)
    assert any("leaves no keys" in text for text in said)


def test_a_key_of_a_region_counts_what_the_net_takes_on_its_crop() -> None:
    """At least its pixels; a net with costs of its own in each call takes more."""

    class Heavy(ThresholdNet):
        def features(self, frames_B3HW: Any) -> Any:
            for _ in range(30):
                frames_B3HW.new_ones(400, 400).matmul(frames_B3HW.new_ones(400, 400))
            return super().features(frames_B3HW)

    costs = crop_costs(ChunkedNet(Heavy(), level="labels", batch=1, device="cpu"), (64, 96), CUT, 1, "cpu")
    shares = [crop.pixels / (64 * 96) for crop in CUT.crops((64, 96))]
    assert all(cost >= share for cost, share in zip(costs, shares, strict=True)) and sum(costs) > 2.5
    assert usual_pixels(RegionsConfig(), 512) == 1.0 and usual_pixels(CUT, 512) > 1.05


def test_shares_are_those_of_regions_weighted_by_what_they_count() -> None:
    parts = (0.5, 0.25, 0.25, 0.3)
    keys = (np.arange(0, 40, 4), np.arange(0, 40, 8), np.arange(0, 40, 8), np.arange(0, 40, 8)) * 2
    share = long_run_share(keys, [40] * 8, parts)
    assert share == pytest.approx(0.5 / 4 + 0.8 / 8)
    family = FixedFamily([], 39, parts)
    assert family.at(10).share == pytest.approx(0.13) and family.within(0.13) == 10
    assert family.at(10).of_clip(0) == ()


def test_frames_are_put_together_and_compared_with_the_net_on_whole_frames() -> None:
    """One setting for all regions of all clips; the sample is asked region by region."""

    class Sample(SampleTasks):
        def __init__(self) -> None:
            self.wanted: list[Any] = []

        def look_by_region(self, places: Any, regions: RegionsConfig) -> Any:
            return (LookedByRegion([], "", (0.3,) * 4, (64, 96)) for _ in places)

        def value_by_region(self, way: Way, wanted: Any) -> Any:
            self.wanted = wanted
            return [[0.5 + place / 10 for _ in schedules] for place, schedules in wanted]

    sample = Sample()
    trial = GridTrial(config(), Way(CUT, PropagationConfig()), sample, [0, 2], ["fixed"])
    keys = tuple(np.array([0, number]) for number in range(1, 9))
    (valued,) = trial.value([Point(family="fixed", settings={}, keys=keys, share=0.1, parts=trial.parts)])
    assert valued.quality_C.tolist() == [0.5, 0.7]
    assert [[each.tolist()[1] for each in schedules[0]] for _, schedules in sample.wanted] == [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
    ]
    assert trial.reads == Reads()
    assert trial.pixels == pytest.approx(56 * 40 * 4 / (64 * 96)) and trial.problem == ""


class EvenSample(SampleTasks):
    """Clips of 121 frames; N takes twice as long on all crops of a frame as on the frame."""

    def __init__(self) -> None:
        pass

    def look_by_region(self, places: Any, regions: RegionsConfig) -> Any:
        table: Any = SimpleNamespace(frames=121)
        return (LookedByRegion([table] * 4, "", (0.5,) * 4, (64, 96)) for _ in places)

    def value_by_region(self, way: Way, wanted: Any) -> Any:
        return [[0.5 + sum(map(len, keys)) / 1000 for keys in schedules] for _, schedules in wanted]


@pytest.mark.parametrize(("named", "interval"), [(True, 15), (False, 20)])
def test_what_regions_promise_is_said_in_pixels_as_a_run_counts_them(named: bool, interval: int) -> None:
    """The promised share was one of the net's time, the achieved one of pixels; a grid that the run names
    kept its budget in time, and in pixels where nothing was looked at."""
    asked = config(calibration=CalibrationConfig(), regions=CUT) if named else config()
    trial = GridTrial(asked, Way(CUT, PropagationConfig()), EvenSample(), [0, 1], ["fixed"])
    found = trial.search(0.1, [121, 121], 0.0)
    assert found.settings["interval"] == interval
    assert found.key_share == pytest.approx(trial.pixels / interval)
    assert found.net_share == pytest.approx(2 / interval)
    assert [row["key_share"] for row in found.tried] == [found.key_share]
    said = describe(replace(found, regions={"grid": "2x2"}))
    share, time = 100 * trial.pixels / interval, 200 / interval
    assert f"({share:.1f} % of the pixels, {time:.1f} % of the net's time)" in said
    assert "at most 10 % of the pixels" in said and "at most 10 % key frames" in describe(found)
    longest = trial.search(0.01, [121, 121], 0.0)
    assert "forces a frame's worth of pixels in" in longest.note
    cut = replace(found, regions={"grid": "2x2", "overlap": 8})
    kept = outcome(cut, {"frames": 40, "keys": 40, "aki": interval / trial.pixels}, None)
    assert kept["promised"]["aki"] == pytest.approx(kept["achieved"]["aki"])


class AheadSample(EvenSample):
    """Keeps the longest intervals with which schedulers look ahead; all take every tenth frame."""

    def __init__(self) -> None:
        self.intervals: list[int] = []

    def look_ahead(self, tables: Any, about: SchedulerConfig, prices: Any) -> Any:
        self.intervals.append(about.max_interval)
        return [np.tile(np.arange(121) % 10 == 0, (len(prices), 1)) for _ in tables]


@pytest.mark.parametrize("named", [True, False])
def test_a_longest_interval_goes_with_what_a_region_may_have(named: bool) -> None:
    """It went with the run's budget, as if crops of a frame cost no more than the frame: keys that must be
    took more than their part."""
    asked = config(calibration=CalibrationConfig(), regions=CUT) if named else config()
    sample = AheadSample()
    trial = GridTrial(asked, Way(CUT, PropagationConfig()), sample, [0, 1], ["split"])
    trial.search(0.1, [121, 121], 0.0)
    assert sample.intervals == [furthest_for(0.1 / (trial.pixels if named else 2.0))]
    assert sample.intervals[0] > furthest_for(0.1)


class TwoSizes(EvenSample):
    """A wide clip and a high one."""

    def look_by_region(self, places: Any, regions: RegionsConfig) -> Any:
        looked = zip(super().look_by_region(places, regions), [(64, 96), (96, 64)], strict=True)
        return (replace(each, size=size) for each, size in looked)


def test_pixels_are_those_of_all_clips_not_of_the_first() -> None:
    """Overlap is another share of a high frame than of a wide one; the first clip spoke for all."""
    columns = RegionsConfig(grid="1x2", overlap=8)
    trial = GridTrial(config(), Way(columns, PropagationConfig()), TwoSizes(), [0, 1], ["fixed"])
    assert trial.pixels == pytest.approx((112 / 96 + 80 / 64) / 2)


def test_shares_beside_the_choice_are_in_its_unit() -> None:
    """Those that were tried stayed in the net's time where the net runs on every frame; even keys of regions
    were said to be keys."""
    asked = config(calibration=CalibrationConfig(), regions=CUT)
    trial = GridTrial(asked, Way(CUT, PropagationConfig()), EvenSample(), [0, 1], ["fixed"])
    found = trial.search(0.1, [121, 121], 0.0)
    every = trial._in_pixels(replace(found, settings={"name": "every"}, tried=[{**found.settings}]))
    assert [row["key_share"] for row in every.tried] == [found.key_share]
    other = replace(found, settings={"name": "planner"}, regions={"grid": "2x2"})
    assert f"({100 * found.key_share:.1f} % of the pixels): fidelity" in describe(other)


def test_what_a_schedule_of_regions_is_worth_is_what_the_run_comes_to(tmp_path: Path) -> None:
    """Against the net on whole frames, borders counted."""
    scenes = open_dataset("scenes:videos=1,frames=11,height=64,width=96,seed=2")
    (tmp_path / "clips" / "scene").mkdir(parents=True)
    for number, item in enumerate(scenes.items("all")):
        Image.fromarray(scenes.read(item).frame_HW3).save(tmp_path / "clips" / "scene" / f"{number:05}.png")
    asked = config(
        segmenter="tiny-scenes",
        budget=0.5,
        propagation=PropagationConfig(flow_size=64),
        calibration=CalibrationConfig(schedulers=("fixed",), grids=("2x2",), clip_frames=16),
    )
    (scene,) = expand_inputs([str(tmp_path / "clips")])
    unit = Unit(clip="s", segment=0, source=scene.uri, video_id="", start=0, stop=11)
    sample = SampleTasks(asked, [unit])
    (looked,) = sample.look()
    (cut,) = sample.look_by_region([0], CUT)
    assert looked.problem == cut.problem == "" and len(cut.tables) == 4
    keys = (np.arange(0, 11, 5),) * 4
    ((worth,),) = sample.value_by_region(Way(CUT, asked.propagation), [(0, [keys])])

    run = small_config(
        tmp_path / "clips",
        tmp_path / "out",
        segmenter="tiny-scenes",
        executor="local",
        workers=1,
        regions=CUT,
        scheduler=SchedulerConfig(interval=5),
        propagation=asked.propagation,
    )
    assert run_segment(run, Reporter("text", io.StringIO())) == 0
    done = open_run(run.output)
    (video,) = done.videos().to_pylist()
    seen = sample._seen[0]
    assert seen is not None
    reached = [
        truth.quality(done.mask(video["video_id"], number)) for number, truth in enumerate(seen.truths)
    ]
    assert worth == pytest.approx(float(np.mean(reached)), abs=1e-9) and worth < 1


def test_nothing_changes_for_runs_that_name_no_grid() -> None:
    plain = config(calibration=CalibrationConfig(), regions=RegionsConfig())
    asked = _ask(plain, [], "n")
    assert not [name for name in asked if "grid" in name or "overlap" in name]
    first = whole(plain, BASE)
    assert chosen(plain, first, None) is first
    assert _ask(config(), [], "n")["calibration.overlap"] == 8


def test_without_a_look_a_named_grid_keeps_the_budget_in_pixels() -> None:
    asked = config(calibration=CalibrationConfig(), regions=CUT)
    choice = unseen(asked, "why")
    assert choice.key_share <= 0.1 and choice.settings["interval"] == 11
    assert with_choice(asked, choice).regions == CUT
    drop = unseen(replace(asked, budget=None, max_drop=1.0), "why")
    assert with_choice(replace(asked, budget=None, max_drop=1.0), drop).regions.grid == "1x1"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"calibration": CalibrationConfig(grids=("9x9",)), "working_size": "64"},
            "--calibration.grids: 9x9 cuts",
        ),
        ({"regions": CUT}, "--calibration.grids: the dial keeps to --regions.grid 2x2"),
        ({"budget": None}, "--calibration.grids: goes with --budget or --max_drop"),
    ],
)
def test_what_cannot_be_tried_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config(**options)
    for grid, problem in (("2by2", "must be ROWSxCOLUMNS"), ("1x1", "is whole frames")):
        with pytest.raises(ConfigError, match=f"--calibration.grids: .*{problem}"):
            CalibrationConfig(grids=(grid,))


def test_what_a_run_would_refuse_is_left_out_before_the_net_runs_on_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that looks ahead keeps pictures of all that is ahead: it was chosen, and then the run refused."""
    printed = io.StringIO()
    tried, carrier = CalibrationConfig(schedulers=("fixed", "planner")), PropagationConfig(name="match")
    asked = config(
        calibration=tried,
        regions=RegionsConfig(),
        propagation=replace(carrier, self_check=False),
        working_size="256",
        state_mb=50,
    )
    assert at_hand(asked, Reporter("text", printed)) == ("fixed",)
    assert "planner is not tried: --state_mb: is 50" in printed.getvalue()
    with pytest.raises(ConfigError, match="--calibration: no scheduler is left to try"):
        _look_and_choose(replace(asked, state_mb=1), [], Reporter("text", printed), tasks=never)
    drawn = SimpleNamespace(declined="", units=[None], config=replace(asked, state_mb=1))
    monkeypatch.setattr(dial, "draw_sample", lambda *args: drawn)
    with pytest.raises(ConfigError, match="--calibration: no scheduler is left to try"):
        dial.say_cost(replace(asked, output=str(tmp_path)), [], Reporter("text", printed))


def never(units: Any) -> Any:
    raise AssertionError("the net ran")


def test_a_scheduler_of_another_grid_is_left_out(tmp_path: Path) -> None:
    said = list[str]()
    asked = config(
        scheduler=SchedulerConfig(name="planner", policy=planner_of(tmp_path, RegionsConfig(grid="3x3")))
    )
    way = Way(CUT, asked.propagation)
    assert names_for(("fixed", "planner"), asked, way, said.append) == ("fixed",)
    assert names_for(("planner",), config(), way, said.append) == ("planner",)
    assert len(said) == 1 and "has learned from" in said[0]


def test_regions_that_would_keep_more_of_a_segment_than_is_allowed_are_not_tried() -> None:
    """Overlap makes crops larger than the frame: such a grid was chosen, and then the run was refused."""
    carrier = PropagationConfig(name="match", self_check=False)
    said, whole = list[str](), RegionsConfig()
    cut = RegionsConfig(grid="2x2", overlap=64)
    asked = config(regions=RegionsConfig(overlap=64), working_size="256", state_mb=26)
    assert names_for(("fixed",), asked, Way(whole, carrier), said.append) == ("fixed",)
    assert (
        names_for(("fixed",), asked, Way(cut, carrier), said.append) == () and "--state_mb: is 26" in said[0]
    )
