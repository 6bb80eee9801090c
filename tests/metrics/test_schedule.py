"""Promise: what is said about a schedule (fall-off after keys, latency, cost) is what its definition says,
frame by frame.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidseg_core.metrics import Cost, distances, latency, quality_by_distance, waits

KEYS = np.array([1, 0, 0, 1, 0, 1, 0, 0, 0], bool)


def test_distance_and_wait_to_the_keys_on_both_sides() -> None:
    assert distances(KEYS).tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    assert waits(KEYS).tolist() == [0, 2, 1, 0, 1, 0, 2, 1, 0]  # nothing comes after the last frame
    assert distances([]).size == 0 and waits([True]).tolist() == [0]
    with pytest.raises(ValueError, match="first frame"):
        distances([False, True])


def test_quality_by_distance_is_the_mean_at_each_distance() -> None:
    rng = np.random.default_rng(0)
    distance, quality = rng.integers(0, 6, 200), rng.random(200)
    quality[rng.random(200) < 0.3] = np.nan
    decay = quality_by_distance(distance, quality)
    for d, mean, frames in zip(decay.distance, decay.quality, decay.frames, strict=True):
        mine = [q for at, q in zip(distance, quality, strict=True) if at == d and not math.isnan(q)]
        assert (frames, mean) == (len(mine), pytest.approx(sum(mine) / len(mine)))
    assert quality_by_distance(np.array([1]), np.array([np.nan])).distance.size == 0


def test_latency_counts_compute_and_waiting_apart() -> None:
    one = latency(KEYS, two_sided=False, key_s=0.5, other_s=0.01)
    assert (one.max_s, one.max_wait_frames, one.mean_wait_frames) == (0.5, 0, 0.0)
    assert one.mean_s == pytest.approx((3 * 0.5 + 6 * 0.01) / 9)
    late = latency(KEYS, two_sided=False, key_s=0.5, other_s=0.01, fast_track=True)
    assert late.max_s == 0.01 and late.mean_s == pytest.approx((0.5 + 8 * 0.01) / 9)
    two = latency(KEYS, two_sided=True, key_s=0.5, other_s=0.01)
    assert (two.max_wait_frames, two.mean_wait_frames) == (2, pytest.approx(7 / 9))


def test_money_per_video_hour() -> None:
    cost = Cost(cpu_s=120.0, gpu_s=30.0, video_s=60.0)
    assert cost.cpu_s_per_video_hour == 7200.0 and cost.gpu_s_per_video_hour == 1800.0
    assert cost.money_per_video_hour(cpu_hour=0.05, gpu_hour=2.0) == pytest.approx(2 * 0.05 + 0.5 * 2.0)
    assert math.isnan(Cost(cpu_s=1.0, gpu_s=0.0, video_s=0.0).cpu_s_per_video_hour)
    with pytest.raises(ValueError, match="prices"):
        cost.money_per_video_hour(cpu_hour=-1.0, gpu_hour=0.0)
