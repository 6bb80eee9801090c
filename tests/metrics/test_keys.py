"""Promise: AKI, KAR, CKI and saved calls are what DVRL means by them, and no interval crosses a segment's
edge."""

from __future__ import annotations

import numpy as np
import pytest

from vidseg_core.metrics import join, key_all_ratio, key_statistics


def schedule(length: int, *keys: int) -> np.ndarray:
    is_key = np.zeros(length, dtype=bool)
    is_key[list(keys)] = True
    return is_key


def test_a_fixed_interval_gives_that_interval() -> None:
    found = key_statistics(schedule(30, 0, 10, 20))
    assert (found.frames, found.keys, found.aki) == (30, 3, 10.0)
    assert found.interval_histogram() == {10: 2}
    assert found.calls_saved == pytest.approx(0.9)


def test_segments_are_joined_without_an_interval_between_them() -> None:
    total = join(
        [
            key_statistics(schedule(10, 0, 4)),
            key_statistics(schedule(6, 0)),
            key_statistics(schedule(9, 0, 8)),
        ]
    )
    assert (total.frames, total.keys, total.aki) == (25, 5, 5.0)
    assert total.interval_histogram() == {4: 1, 8: 1}
    assert total.interval_quantiles([0.0, 1.0]).tolist() == [4.0, 8.0]


def test_kar_looks_back_over_the_window_only() -> None:
    is_key = np.random.default_rng(0).random(300) < 0.2
    for window in (1, 7, 90):
        expected = [np.mean(is_key[max(0, last - window + 1) : last + 1]) for last in range(300)]
        assert key_all_ratio(is_key, window) == pytest.approx(expected)
    assert key_all_ratio([True, False])[1] == 0.5


def test_empty_schedules_have_no_interval() -> None:
    nothing = join([])
    assert (nothing.frames, nothing.keys, nothing.calls_saved) == (0, 0, 0.0)
    assert np.isnan(nothing.aki) and np.isnan(nothing.interval_quantiles()).all()
    assert key_statistics([True]).intervals.size == 0
    with pytest.raises(ValueError, match="window"):
        key_all_ratio([True], 0)
