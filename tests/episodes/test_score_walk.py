"""Promise: on thinned tables a scheduler that scores takes known keys only, and no more than it may."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.score_walk import distance_score, fit_threshold, random_score, run_scores
from tests.episodes.tables import random_table
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.episodes.walk import feature, fixed_keys, walk


@given(seed=st.integers(0, 40), most=st.integers(4, 20))
def test_one_threshold_for_all_clips_stays_within_the_budget(seed: int, most: int) -> None:
    tables = [random_table(9, 5, seed=seed), random_table(8, 5, seed=seed + 1)]
    threshold, keys = fit_threshold(tables, [feature(table, "f0") for table in tables], most)
    assert sum(map(len, keys)) <= most
    for table, chosen in zip(tables, keys, strict=True):
        walk(table, chosen)
        again = run_scores(table, feature(table, "f0"), np.array([threshold]))[0]
        assert np.flatnonzero(again).tolist() == chosen.tolist()


def test_a_budget_below_what_the_horizon_forces_is_told() -> None:
    table = random_table(20, 5)
    with pytest.raises(EpisodeError, match="3 keys are too few for 20 frames: .* forces 4"):
        fit_threshold([table], [feature(table, "f0")], 3)


def test_distance_is_the_fixed_scheduler() -> None:
    table = random_table(20, 8)
    keys = run_scores(table, distance_score(table, 0), np.array([3.5, 100.0]))
    assert np.flatnonzero(keys[0]).tolist() == fixed_keys(20, 4).tolist()
    assert np.flatnonzero(keys[1]).tolist() == fixed_keys(20, 8).tolist()  # forced by the horizon


def test_random_numbers_belong_to_frame_and_seed() -> None:
    table = random_table(20, 8)
    score = random_score(table, 1)
    assert score[2, 5] == score[6, 1] and not np.array_equal(score, random_score(table, 2), equal_nan=True)
    other = replace(table, clip="other")
    assert not np.array_equal(score, random_score(other, 1), equal_nan=True)
