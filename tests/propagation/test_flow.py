"""Promise: flow points from the current frame to the key, and is the same on every run and thread."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from vidseg_core.propagation import DisFlow, FlowEstimator, UnknownNameError, build_flow


def pair(height: int = 64, width: int = 96, shift: int = 4) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(2).integers(0, 256, (height, width + shift), dtype=np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return soft[:, shift:], soft[:, :width]


def test_flow_points_to_where_the_key_shows_the_same() -> None:
    current, key = map(np.ascontiguousarray, pair())
    (flow_HW2,) = DisFlow().flow([current], [key])
    assert flow_HW2.shape == (64, 96, 2) and flow_HW2.dtype == np.float32
    np.testing.assert_allclose(np.median(flow_HW2.reshape(-1, 2), axis=0), [4.0, 0.0], atol=0.1)


@pytest.mark.parametrize("preset", ["fast", "standard", "fine"])
def test_flow_does_not_depend_on_threads_history_or_transport(preset: str) -> None:
    current, key = map(np.ascontiguousarray, pair())
    estimator, before = DisFlow(preset), cv2.getNumThreads()
    expected = estimator.flow([current], [key])[0]
    try:
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            again = estimator.flow([key, current, current], [current, key, key])
            np.testing.assert_array_equal(again[1], expected)
            np.testing.assert_array_equal(again[2], expected)
    finally:
        cv2.setNumThreads(before)
    side_by_side = DisFlow(preset, threads=3).flow([current] * 7, [key] * 7)
    assert all(np.array_equal(flow_HW2, expected) for flow_HW2 in side_by_side)
    moved = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(moved.flow([current], [key])[0], expected)
    with ThreadPoolExecutor(4) as pool:
        for flows in pool.map(lambda _: estimator.flow([current], [key]), range(16)):
            np.testing.assert_array_equal(flows[0], expected)


@pytest.mark.parametrize("size", [(8, 8), (12, 300), (16, 16), (1, 40)])
def test_tiny_pictures_have_a_flow(size: tuple[int, int]) -> None:
    blank = np.zeros(size, np.uint8)
    (flow_HW2,) = DisFlow().flow([blank], [blank])
    assert flow_HW2.shape == (*size, 2) and np.isfinite(flow_HW2).all()


def test_names_and_presets_are_checked() -> None:
    assert isinstance(build_flow(), FlowEstimator)
    with pytest.raises(UnknownNameError, match="unknown flow estimator 'diss'; did you mean 'dis'"):
        build_flow("diss")
    with pytest.raises(ValueError, match="flow preset 'slow'"):
        build_flow("dis", preset="slow")
