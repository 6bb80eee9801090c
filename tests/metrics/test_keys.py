"""Promise: AKI, CKI and saved calls are what DVRL means by them, and no interval crosses a segment's
edge."""

from __future__ import annotations

import numpy as np
import pytest

from vidseg_core.metrics import join, key_statistics


def schedule(length: int, *keys: int) -> np.ndarray:
    is_key = np.zeros(length, dtype=bool)
    is_key[list(keys)] = True
    return is_key


def test_a_fixed_interval_gives_that_interval() -> None:
    found = key_statistics(schedule(30, 0, 10, 20))
    assert (found.frames, found.keys, found.aki) == (30, 3, 10.0)
    assert found.intervals.tolist() == [10, 10]
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
    assert total.intervals.tolist() == [4, 8]


def test_empty_schedules_have_no_interval() -> None:
    nothing = join([])
    assert (nothing.frames, nothing.keys, nothing.calls_saved) == (0, 0, 0.0)
    assert np.isnan(nothing.aki) and nothing.intervals.size == 0
    assert key_statistics([True]).intervals.size == 0
