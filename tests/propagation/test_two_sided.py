"""Promise: each pixel comes from the side with the lower error around it; ties go to the nearer key."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidseg_core.propagation.two_sided import choose, prefer_right
from vidseg_core.propagation.warp import error_sums


def halves(left: int, right: int) -> np.ndarray:
    error_HW = np.full((40, 40), left, np.uint8)
    error_HW[:, 20:] = right
    return error_HW


def brute_sums(error_HW: np.ndarray, window: int = 9) -> np.ndarray:
    reach = window // 2
    padded = np.pad(error_HW.astype(np.int64), reach, mode="reflect")
    return sum(
        padded[y : y + error_HW.shape[0], x : x + error_HW.shape[1]]
        for y in range(window)
        for x in range(window)
    )  # type: ignore[return-value]


def test_error_sums_are_exact_integers() -> None:
    error_HW = np.random.default_rng(0).integers(0, 256, (33, 47), dtype=np.uint8)
    np.testing.assert_array_equal(error_sums(error_HW), brute_sums(error_HW))
    np.testing.assert_array_equal(error_sums(np.dstack([error_HW] * 3)), 3 * brute_sums(error_HW))


def test_the_advantage_adds_the_means_of_a_small_and_a_large_square() -> None:
    left, right = np.random.default_rng(1).integers(0, 256, (2, 33, 47), dtype=np.uint8)
    difference_HW = left.astype(np.int64) - right
    expected_HW = 169 * brute_sums(difference_HW, 5) + 25 * brute_sums(difference_HW, 13)
    np.testing.assert_array_equal(prefer_right(left, right, right_is_nearer=True) - 0.5, expected_HW)
    thrice = prefer_right(np.dstack([left] * 3), np.dstack([right] * 3), right_is_nearer=False)
    np.testing.assert_array_equal(thrice + 0.5, 3 * expected_HW)


def test_the_side_with_the_lower_error_wins() -> None:
    advantage_hw = prefer_right(halves(50, 5), halves(5, 50), right_is_nearer=False)
    left_HW, right_HW = np.zeros((80, 80), np.uint8), np.ones((80, 80), np.uint8)
    chosen_HW = choose(left_HW, right_HW, advantage_hw)
    assert chosen_HW[:, :36].all() and not chosen_HW[:, 44:].any()
    assert not left_HW.any() and right_HW.all()


@pytest.mark.parametrize("right_is_nearer", [True, False])
def test_a_tie_goes_to_the_nearer_key(right_is_nearer: bool) -> None:
    advantage_hw = prefer_right(halves(7, 7), halves(7, 7), right_is_nearer=right_is_nearer)
    chosen_HW = choose(np.zeros((40, 40), np.uint8), np.ones((40, 40), np.uint8), advantage_hw)
    assert (chosen_HW == right_is_nearer).all()


def test_one_gray_level_beats_distance() -> None:
    advantage_hw = prefer_right(halves(8, 8), halves(7, 7), right_is_nearer=False)
    assert (advantage_hw > 0).all()


def test_tensors_and_tuples_are_chosen_from_at_their_own_resolution() -> None:
    advantage_hw = prefer_right(halves(50, 5), halves(5, 50), right_is_nearer=False)
    left = (torch.zeros(3, 40, 40), torch.zeros(2, 10, 10))
    right = (torch.ones(3, 40, 40), torch.ones(2, 10, 10))
    fine, coarse = choose(left, right, advantage_hw)
    assert fine.shape == (3, 40, 40) and coarse.shape == (2, 10, 10)
    assert bool(fine[:, :, :18].all()) and not bool(fine[:, :, 22:].any())
    assert bool(coarse[:, :, :4].all()) and not bool(coarse[:, :, 6:].any())
