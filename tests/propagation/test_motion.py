"""Promise: vectors are chained to the key without a picture being looked at, also when a key comes between a
frame and the one that it refers to; what has not moved costs nothing and stays as it is.

Why: a chain that is wrong by a frame, or a flow that is read upside down in a turned video, moves every label
a little: masks look right and are not.
"""

from __future__ import annotations

import numpy as np
import pytest

from vidseg_core.media.motion import UNKNOWN, Motion
from vidseg_core.propagation.motion import (
    MOST_REFERENCES,
    dense,
    flow_to_key,
    joined,
    rebased,
    references_after,
)
from vidseg_core.propagation.warp import VectorFlow, warp_labels

SIZE = (32, 48)


def motion(
    u: int = 0, v: int = 0, *, since: int = 1, oldest: int = 1, rotation: int = 0, is_reference: bool = True
) -> Motion:
    """The same vector everywhere, whole pixels of a picture of 64 rows and 96 columns."""
    cells_hw2 = np.broadcast_to(np.array([4 * u, 4 * v], np.int16), (8, 12, 2)).copy()
    return Motion(
        since=since,
        oldest=oldest,
        is_reference=is_reference,
        width=96,
        height=64,
        cells_hw2=cells_hw2,
        rotation=rotation,
    )


def uniform(u: float, v: float) -> np.ndarray:
    return np.broadcast_to(np.array([u, v], np.float32), (*SIZE, 2)).copy()


def known(flow_hw2: np.ndarray | None) -> np.ndarray:
    assert flow_hw2 is not None
    return flow_hw2


def test_vectors_are_pixels_of_the_size_asked_for() -> None:
    np.testing.assert_array_equal(dense(motion(6, -4), *SIZE), uniform(3, -2))


@pytest.mark.parametrize(("rotation", "expected"), [(90, (-4, -6)), (180, (-6, 4)), (-90, (4, 6))])
def test_a_turned_picture_moves_as_it_is_seen(rotation: int, expected: tuple[int, int]) -> None:
    rows, columns = (64, 96) if rotation == 180 else (96, 64)
    flow_hw2 = dense(motion(6, -4, rotation=rotation), rows, columns)
    assert flow_hw2.shape == (rows, columns, 2)
    assert np.array_equal(
        flow_hw2.reshape(-1, 2), np.broadcast_to(np.array(expected, np.float32), (rows * columns, 2))
    )


def test_a_cell_without_a_vector_moves_as_those_around_it() -> None:
    said = motion(8, 4)
    assert said.cells_hw2 is not None
    said.cells_hw2[3:5, 4:9] = UNKNOWN
    np.testing.assert_allclose(dense(said, *SIZE), uniform(4, 2))


def test_steps_add_up_back_to_the_key() -> None:
    references: dict[int, np.ndarray | None] = {10: None}
    for number in range(11, 16):
        flow_hw2 = flow_to_key(motion(4, 2), number, references, SIZE)
        np.testing.assert_allclose(known(flow_hw2), uniform(2 * (number - 10), number - 10))
        references = references_after(motion(4, 2), number, references, flow_hw2, is_key=False)
        assert list(references)[-1] == number and len(references) <= MOST_REFERENCES


def test_a_reference_that_is_not_known_is_said() -> None:
    assert flow_to_key(motion(4, 2, since=3), 12, {10: None}, SIZE) is None
    assert flow_to_key(None, 12, {11: None}, SIZE) is None
    intra = Motion(since=0, oldest=0, is_reference=True, width=96, height=64)
    assert flow_to_key(intra, 12, {11: None}, SIZE) is None


def test_only_what_later_frames_may_refer_to_is_kept() -> None:
    there = {8: None, 10: uniform(1, 0), 11: uniform(2, 0)}
    left = references_after(motion(oldest=2, is_reference=False), 12, there, uniform(3, 0), is_key=False)
    assert list(left) == [10, 11]
    assert references_after(None, 12, there, uniform(3, 0), is_key=False) == {}


def test_a_frame_before_a_new_key_leads_to_it() -> None:
    y, x = np.mgrid[:32, :48].astype(np.float32)
    before_hw2 = np.stack([3 + 0.05 * x, 1 - 0.03 * y], axis=-1)  # a frame to the old key
    step_hw2 = np.stack([1.5 + 0.02 * y, 0.5 + 0.01 * x], axis=-1)  # the new key to that frame
    to_new_hw2 = rebased(before_hw2, joined(step_hw2, before_hw2), -step_hw2)
    np.testing.assert_allclose(joined(step_hw2, to_new_hw2)[6:-6, 6:-6], 0, atol=0.05)


def test_a_key_that_others_skip_is_reached_all_the_same() -> None:
    references = references_after(motion(2, 0, since=2, oldest=2), 12, {10: None}, uniform(1, 0), is_key=True)
    np.testing.assert_allclose(known(references[10]), uniform(-1, 0))
    assert references[12] is None
    flow_hw2 = flow_to_key(motion(4, 0, since=4), 14, references, SIZE)
    np.testing.assert_allclose(known(flow_hw2)[:, 4:-4], uniform(1, 0)[:, 4:-4])


def test_where_nothing_moves_the_labels_are_the_key_s_own() -> None:
    labels_HW = np.random.default_rng(0).integers(0, 5, (64, 96), dtype=np.uint8)
    references: dict[int, np.ndarray | None] = {10: None}
    for number in (11, 12):
        flow_hw2 = known(flow_to_key(motion(), number, references, SIZE))
        assert warp_labels(labels_HW, flow_hw2) is labels_HW
        references = references_after(motion(), number, references, flow_hw2, is_key=False)


@pytest.mark.parametrize("size", [(64, 96), (32, 48), (96, 144), (50, 70)])
def test_what_moves_is_warped_as_ever(size: tuple[int, int]) -> None:
    labels_HW = np.random.default_rng(0).integers(0, 5, size, dtype=np.uint8)
    flow_hw2 = np.zeros((*SIZE, 2), np.float32)
    flow_hw2[5:14, 20:48] = np.random.default_rng(1).normal(0, 3, (9, 28, 2))
    moved_HW = warp_labels(labels_HW, flow_hw2.view(VectorFlow))
    np.testing.assert_array_equal(moved_HW, warp_labels(labels_HW, flow_hw2))
