"""Promise: the oracle is the best schedule there is, for every number of keys, one-sided and two-sided, and
for a corpus under one budget. Checked against trying everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.episodes.tables import random_table
from vidseg_core.episodes.oracle import Curve, divide, one_sided_curve, share_of_gap, two_sided_curve
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.walk import even_keys, two_sided_total, walk


def schedules(frames: int, keys: int, longest: int) -> list[tuple[int, ...]]:
    """Every schedule with so many keys and no interval above `longest`."""
    found = ((0, *rest) for rest in combinations(range(1, frames), keys - 1))
    return [s for s in found if all(np.diff((*s, frames)) <= longest)]


def best_by_trying(table: EpisodeTable, keys: int, longest: int, sides: str) -> float:
    values = [
        walk(table, s).total if sides == "one" else two_sided_total(table, s)
        for s in schedules(table.frames, keys, longest)
    ]
    return max(values, default=-np.inf)


@given(
    frames=st.integers(1, 9),
    horizon=st.integers(1, 6),
    seed=st.integers(0, 99),
    sides=st.sampled_from(["one", "two"]),
)
def test_nothing_is_better_than_the_oracle(frames: int, horizon: int, seed: int, sides: str) -> None:
    table = random_table(frames, horizon, seed=seed)
    curve = (one_sided_curve if sides == "one" else two_sided_curve)(table)
    for keys in range(1, frames + 1):
        best = best_by_trying(table, keys, horizon, sides)
        assert curve.total_M1[keys] == pytest.approx(best, abs=1e-5)
        if np.isfinite(best):
            schedule = curve.schedule(keys)
            assert len(schedule) == keys
            value = walk(table, schedule).total if sides == "one" else two_sided_total(table, schedule)
            assert value == pytest.approx(best, abs=1e-5)
        else:
            with pytest.raises(EpisodeError, match="no schedule of"):
                curve.schedule(keys)


@given(seed=st.integers(0, 30), longest=st.integers(1, 5))
def test_intervals_stay_within_the_limit(seed: int, longest: int) -> None:
    table = random_table(11, 5, seed=seed)
    curve = one_sided_curve(table, max_interval=longest)
    assert curve.least == -(-11 // longest)
    for keys in range(curve.least, 12):
        assert max(np.diff([*curve.schedule(keys), 11])) <= longest
        assert curve.total_M1[keys] == pytest.approx(best_by_trying(table, keys, longest, "one"), abs=1e-5)


@settings(max_examples=20)
@given(seed=st.integers(0, 30), delay=st.integers(1, 9), longest=st.integers(3, 6))
def test_with_low_latency_nothing_is_better_either(seed: int, delay: int, longest: int) -> None:
    """Even where keys come while others are under way, which ends the delay of these."""
    table = random_table(10, 6, seed=seed)

    def total(schedule: Sequence[int] | np.ndarray) -> float:
        try:
            return walk(table, schedule, delay=delay).total
        except EpisodeError:  # farther from its key than the table knows
            return -np.inf

    curve = one_sided_curve(table, max_interval=longest, delay=delay)
    for keys in range(1, 11):
        best = max(map(total, schedules(10, keys, longest)), default=-np.inf)
        assert curve.total_M1[keys] == pytest.approx(best, abs=1e-5)
        if np.isfinite(best):
            assert total(curve.schedule(keys)) == pytest.approx(best, abs=1e-5)


@given(seed=st.integers(0, 30))
def test_thinned_keys_and_unlabelled_frames(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = random_table(9, 5, seed=seed)
    quality, two = table.quality_TL1.copy(), table.two_sided_TL1
    assert two is not None
    for frame in rng.choice(9, 3, replace=False):  # no truth there
        for distance in range(min(frame, 5) + 1):
            quality[frame - distance, distance] = np.nan
    thin = np.arange(9) % 2 == 1
    quality[thin, 1:] = np.nan
    two = np.where(thin[:, None], np.nan, two).astype(np.float32)
    table = replace(table, quality_TL1=quality, two_sided_TL1=two)
    curve = one_sided_curve(table, max_interval=5)
    for keys in range(1, 6):
        able = []
        for schedule in schedules(9, keys, 5):
            try:
                able.append(walk(table, schedule).total)
            except EpisodeError:
                continue
        assert curve.total_M1[keys] == pytest.approx(max(able, default=-np.inf), abs=1e-5)


@given(seed=st.integers(0, 50), budget=st.integers(3, 20), clips=st.integers(1, 3))
def test_a_corpus_is_divided_in_the_best_way(seed: int, budget: int, clips: int) -> None:
    curves = [one_sided_curve(random_table(5 + n, 5, seed=seed + n)) for n in range(clips)]
    least = sum(curve.least for curve in curves)
    if budget < least:
        with pytest.raises(EpisodeError, match=f"need {least} keys"):
            divide(curves, budget)
        return
    ways = product(*(range(1, len(curve.total_M1)) for curve in curves))
    best = max(
        sum(c.total_M1[m] for c, m in zip(curves, way, strict=True)) for way in ways if sum(way) <= budget
    )
    exact, hull = divide(curves, budget, how="exact"), divide(curves, budget, how="hull")
    assert exact.total == pytest.approx(best) and exact.miss == 0.0
    for plan in (exact, hull):
        assert sum(plan.keys) <= budget
        assert plan.total == pytest.approx(sum(c.total_M1[m] for c, m in zip(curves, plan.keys, strict=True)))
    assert hull.total <= best + 1e-9 <= hull.total + hull.miss + 2e-9


@given(seed=st.integers(0, 50), budget=st.floats(6, 30), clips=st.integers(2, 3))
def test_keys_of_different_costs_stay_within_one_budget(seed: int, budget: float, clips: int) -> None:
    """What the hull misses is bounded by what it says, and worth counts."""
    curves = [one_sided_curve(random_table(5 + n, 5, seed=seed + n)) for n in range(clips)]
    costs, worth = [1.0, 1.5, 2.25][:clips], [1.0, 0.5, 2.0][:clips]

    def total(way: Sequence[int]) -> float:
        return sum(w * c.total_M1[m] for w, c, m in zip(worth, curves, way, strict=True))

    def cost(way: Sequence[int]) -> float:
        return sum(m * each for m, each in zip(way, costs, strict=True))

    if budget < cost([curve.least for curve in curves]):
        with pytest.raises(EpisodeError, match="the budget is"):
            divide(curves, budget, costs=costs)
        return
    plan = divide(curves, budget, costs=costs, worth=worth)
    ways = product(*(range(1, len(curve.total_M1)) for curve in curves))
    best = max(total(way) for way in ways if cost(way) <= budget)
    assert cost(plan.keys) <= budget and plan.total == pytest.approx(total(plan.keys))
    assert plan.total <= best + 1e-9 <= plan.total + plan.miss + 2e-9


def test_more_keys_are_never_bought_for_nothing() -> None:
    curve = Curve(
        total_M1=np.array([-np.inf, 1.0, 3.0, 2.0]),
        counted=3,
        frames=3,
        before_MTE=np.zeros((3, 4, 1), np.int16),
    )
    assert curve.best_within(3) == 2
    assert divide([curve], 3).total == 3.0


def test_a_segment_that_no_budget_serves_is_told() -> None:
    with pytest.raises(EpisodeError, match="cannot be served by 2 keys"):
        one_sided_curve(random_table(12, 5), most_keys=2)
    with pytest.raises(EpisodeError, match="horizon 5"):
        one_sided_curve(random_table(12, 5), max_interval=6)
    with pytest.raises(EpisodeError, match="two_sided_stride"):
        two_sided_curve(replace(random_table(), two_sided_TL1=None))


def test_share_of_gap() -> None:
    assert share_of_gap(0.8, 0.7, 0.9) == pytest.approx(0.5)
    assert share_of_gap(0.6, 0.7, 0.9) < 0
    assert np.isnan(share_of_gap(0.8, 0.9, 0.9))


def test_the_oracle_is_at_least_as_good_as_even_keys() -> None:
    table = random_table(200, 60, seed=4)
    curve = one_sided_curve(table)
    for keys in (4, 8, 20):
        assert curve.total_M1[keys] >= walk(table, even_keys(200, keys)).total - 1e-6
