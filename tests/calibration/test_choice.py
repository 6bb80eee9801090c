"""Promise: what `--max_drop` chooses on some clips holds on at least nine of ten others of the same kind,
and a sample that cannot carry such a promise says so.

Why: a dial that is right on the sample and wrong on the corpus is worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.generated_tables import generated_table
from vidseg_core.calibration.choice import (
    LEAST_CLIPS,
    Choice,
    Valued,
    choose_by_drop,
    describe,
    fits,
    interval_of_mean,
    rank,
    unseen,
)
from vidseg_core.calibration.schedulers import FixedFamily, Point, long_run_share
from vidseg_core.calibration.search import search
from vidseg_core.config.dial import CalibrationConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.episodes.walk import walk

SHARES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02)


def valued(name: str, drops_PC: np.ndarray) -> list[Valued]:
    """A scheduler whose settings lose these points on these clips."""
    return [
        Valued(
            point=Point(family=name, settings={"name": name, "threshold": s}, keys=(), share=s),
            quality_C=1 - drops_C / 100,
        )
        for s, drops_C in zip(SHARES, drops_PC, strict=True)
    ]


def corpus(rng: np.random.Generator, clips: int) -> np.ndarray:
    """drops_PC of clips of one kind: the fewer keys the worse, some clips much worse than others."""
    hardness_C = rng.lognormal(0.0, 0.8, clips)
    return np.cumsum(rng.uniform(0.1, 0.6, (len(SHARES), clips)) * hardness_C, axis=0)


def test_the_promise_holds_on_nine_of_ten_other_clips() -> None:
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(150):
        tables = {name: valued(name, corpus(rng, 12)) for name in ("a", "b", "c")}
        best, _, _ = choose_by_drop(tables, 1.0)
        place = -1 if best is None else SHARES.index(best.point.share)
        others_C = corpus(rng, 40)[place] if best is not None else np.zeros(40)
        kept.append(float((others_C <= 1.0).mean()))
    assert np.mean(kept) >= 0.9


@pytest.mark.parametrize(("clips", "least"), [(9, 9), (12, 12), (19, 18), (39, 36), (5, 5)])
def test_ranks_are_those_of_split_conformal_prediction(clips: int, least: int) -> None:
    assert rank(clips) == least


def test_where_nothing_keeps_the_promise_every_frame_is_run_and_it_is_said() -> None:
    choice = dial([FixedFamily(tables(12), 40)], max_drop=0.001)
    assert choice.settings == {"name": "every"} and choice.key_share == 1.0
    assert not choice.can_keep and "every frame" in choice.note
    assert choice.worst_drop == 0


def test_too_few_clips_promise_nothing() -> None:
    choice = dial([FixedFamily(tables(LEAST_CLIPS - 4), 40)], max_drop=80.0)
    assert choice.settings["name"] == "fixed"
    assert not choice.can_keep and "too few for a promise" in choice.note


def test_a_budget_is_kept_and_used() -> None:
    choice = dial([FixedFamily(tables(10), 60)], budget=0.04)
    assert choice.settings == {"name": "fixed", "interval": 25} and choice.can_keep
    assert choice.aki == pytest.approx(25)
    assert choice.fidelity and choice.fidelity_low and choice.fidelity_high
    assert choice.fidelity_low < choice.fidelity < choice.fidelity_high


def test_a_budget_that_the_longest_interval_forbids_is_said() -> None:
    choice = dial([FixedFamily(tables(10), 10)], budget=0.04)
    assert choice.settings == {"name": "fixed", "interval": 10}
    assert not choice.can_keep and "exceeded" in choice.note


@pytest.mark.parametrize("interval", [2, 7, 25])
def test_the_long_run_share_of_a_fixed_interval_is_exact(interval: int) -> None:
    made = tables(3, frames=95)
    point = FixedFamily(made, 90).at(interval)
    assert long_run_share(point.keys, [95] * 3) == pytest.approx(1 / interval)


def test_the_long_run_share_is_not_fooled_by_where_clips_end() -> None:
    rng = np.random.default_rng(1)
    keys = [np.flatnonzero(np.append(True, rng.random(59) < 0.05)) for _ in range(400)]
    counted = sum(map(len, keys)) / (60 * 400)
    assert abs(long_run_share(keys, [60] * 400) - 0.05) < 0.005 < abs(counted - 0.05)


def test_a_share_that_hangs_on_few_clips_does_not_fit_a_budget() -> None:
    calm = np.array([0])
    point = Point(family="x", settings={}, keys=(np.arange(60), *[calm] * 9), share=0.04)
    assert not fits(point, 0.04, [60] * 10, seed=0)


def test_bootstrap_intervals_are_reproducible_and_cover_the_mean() -> None:
    values_C = np.random.default_rng(2).random(12)
    low, high = interval_of_mean(values_C, seed=3)
    assert low < values_C.mean() < high and (low, high) == interval_of_mean(values_C, seed=3)


def test_a_choice_survives_json() -> None:
    choice = dial([FixedFamily(tables(10), 60)], budget=0.1)
    assert Choice(**choice.to_json()).aki == choice.aki


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"budget": 0.1, "max_drop": 1.0}, "one dial"),
        ({"budget": 0.0}, "--budget: must be a share above 0"),
        ({"budget": 1.5}, "--budget"),
        ({"max_drop": -1.0}, "--max_drop: must be points"),
        ({"max_drop": 1.0, "scheduler": SchedulerConfig(name="warp_error", threshold=3.0)}, "chooses it"),
        ({"budget": 0.1, "scheduler": SchedulerConfig(interval=7)}, "--scheduler.interval: --budget"),
    ],
)
def test_what_the_dial_cannot_be_asked(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SegmentConfig(input=("a",), output="b", segmenter="plain", **options)


def test_schedulers_to_try_are_known_by_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'warp_error'"):
        CalibrationConfig(schedulers=("warp_eror",))


def test_even_keys_are_shown_beside_whatever_is_chosen() -> None:
    """`fixed` often does as well as a threshold, and one who is not shown it does not ask."""
    made = tables(10)
    even = FixedFamily(made, 60)

    class Other:
        name = "warp_error"

        def points(self, shares: Sequence[float]) -> list[Point]:
            keys = tuple(np.arange(0, table.frames, 20) for table in made)
            return [
                Point(family=self.name, settings={"name": self.name, "threshold": 3.0}, keys=keys, share=0.04)
            ]

    choice = dial([Other()], budget=0.05, made=made, even=even)
    assert choice.settings["name"] == "warp_error"
    assert choice.even is not None and choice.even["interval"] == 20
    assert choice.even["fidelity"] == pytest.approx(choice.fidelity)
    assert "fixed, interval 20 (5.0 % keys)" in describe(choice) and "+0.00 points" in describe(choice)
    assert "are what was chosen" in describe(dial([even], budget=0.05, made=made, even=even))
    kept = dial([Other()], max_drop=60.0, made=made, even=even)
    assert kept.even is not None and kept.even["interval"] == 25  # as many keys as the choice takes


def test_without_a_look_even_keys_keep_a_budget_and_every_frame_a_limit() -> None:
    job = SegmentConfig(input=("a",), output="b", segmenter="plain", budget=0.04)
    choice = unseen(job, "too small")
    assert choice.settings == {"name": "fixed", "interval": 25} and choice.can_keep
    assert "too small" in describe(choice) and "not known" in describe(choice)
    first_keys = unseen(job, "too small", [250, 260])
    assert first_keys.settings["interval"] == 26 and first_keys.can_keep  # at 25 they are 21 of 510
    assert first_keys.key_share == 20 / 510
    hopeless = unseen(job, "too small", [10])
    assert hopeless.settings["interval"] == 25 and hopeless.key_share == 0.1 and not hopeless.can_keep
    lossless = unseen(replace(job, budget=None, max_drop=1.0), "too small")
    assert lossless.settings == {"name": "every"} and lossless.fidelity == 100
    assert Choice(**json.loads(json.dumps(choice.to_json()))).settings == choice.settings


# builders --------------------------------------------------------------------------------------------------


def tables(clips: int, frames: int = 200) -> list[Any]:
    return [generated_table(frames, 90, seed=seed) for seed in range(clips)]


def dial(
    found: Sequence[Any],
    *,
    budget: float | None = None,
    max_drop: float | None = None,
    made: Sequence[Any] = (),
    even: FixedFamily | None = None,
) -> Choice:
    """The choice with qualities from one-sided tables, relative to the net on every frame."""
    made = made or found[0]._tables

    def value(points: Sequence[Point]) -> list[Valued]:
        return [
            Valued(
                point=point,
                quality_C=np.array(
                    [
                        walk(table, keys).mean / float(table.key_quality_T.mean())
                        for table, keys in zip(made, point.keys, strict=True)
                    ]
                ),
            )
            for point in points
        ]

    frames = [table.frames for table in made]
    return search(found, value, budget=budget, max_drop=max_drop, frames=frames, seed=0, even=even)
