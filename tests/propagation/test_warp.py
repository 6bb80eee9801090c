"""Promise: warping reads the key where the flow points, at every resolution, and nothing else happens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidseg_core.grid import pixel_grid
from vidseg_core.propagation import Copy, FlowWarp, Propagator, UnknownNameError, build_propagator
from vidseg_core.propagation.warp import (
    resize_flow,
    warp_error,
    warp_labels,
    warp_maps,
    warp_picture,
)


def constant_flow(height: int, width: int, u: float, v: float) -> np.ndarray:
    return np.broadcast_to(np.array([u, v], np.float32), (height, width, 2)).copy()


def random_labels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 19, (height, width), dtype=np.uint8)


@given(u=st.integers(-5, 5), v=st.integers(-5, 5), grown=st.sampled_from([1, 2, 4]))
def test_a_shift_at_flow_size_is_the_grown_shift_of_the_labels(u: int, v: int, grown: int) -> None:
    labels_HW = random_labels(16 * grown, 24 * grown)
    y, x = np.mgrid[0 : 16 * grown, 0 : 24 * grown]
    rows = np.clip(y + v * grown, 0, 16 * grown - 1)
    columns = np.clip(x + u * grown, 0, 24 * grown - 1)
    warped_HW = warp_labels(labels_HW, constant_flow(16, 24, u, v))
    np.testing.assert_array_equal(warped_HW, labels_HW[rows, columns])


def test_no_flow_changes_nothing_at_any_size() -> None:
    for height, width in [(16, 24), (37, 53), (512, 512)]:
        labels_HW = random_labels(height, width)
        np.testing.assert_array_equal(warp_labels(labels_HW, constant_flow(16, 24, 0, 0)), labels_HW)


def test_flow_vectors_are_scaled_with_each_axis() -> None:
    grown = resize_flow(constant_flow(10, 20, 1.0, 1.0), 40, 40)
    np.testing.assert_allclose(grown, constant_flow(40, 40, 2.0, 4.0))


def test_maps_move_like_labels() -> None:
    labels_HW = random_labels(16, 24)
    flow_hw2 = constant_flow(32, 48, 6.0, -4.0)
    maps_CHW = torch.from_numpy(np.stack([labels_HW, 2 * labels_HW]).astype(np.float32))
    warped_CHW = warp_maps(maps_CHW, flow_hw2).numpy()
    np.testing.assert_allclose(warped_CHW[0], warp_labels(labels_HW, flow_hw2), atol=1e-3)
    np.testing.assert_allclose(warped_CHW[1], 2 * warped_CHW[0], atol=1e-3)


def test_maps_keep_their_type() -> None:
    half = torch.ones((2, 8, 8), dtype=torch.bfloat16)
    assert warp_maps(half, constant_flow(8, 8, 1.0, 1.0)).dtype == torch.bfloat16


def test_the_error_of_a_perfect_warp_is_zero_inside() -> None:
    key = np.random.default_rng(1).integers(0, 256, (20, 30), dtype=np.uint8)
    current = np.roll(key, 4, axis=1)
    error = warp_error(current, key, constant_flow(20, 30, -4.0, 0.0))
    assert error[:, 4:].max() == 0 and error.dtype == np.uint8
    np.testing.assert_array_equal(warp_error(current, key, None), np.abs(current.astype(int) - key))
    np.testing.assert_array_equal(
        warp_picture(np.dstack([key] * 3), constant_flow(20, 30, 0, 0)), np.dstack([key] * 3)
    )


def test_the_grid_is_shared_and_cannot_be_spoilt() -> None:
    with pytest.raises(ValueError, match="read-only"):
        pixel_grid(4, 5)[0, 0, 0] = 1.0


def test_flow_warp_moves_each_map_of_a_tuple_at_its_own_resolution() -> None:
    flow_hw2 = constant_flow(16, 16, 4.0, 0.0)
    fine, coarse = torch.rand(3, 16, 16), torch.rand(5, 4, 4)
    moved = FlowWarp("features").carry((fine, coarse), flow_hw2)
    torch.testing.assert_close(moved[0], warp_maps(fine, flow_hw2))
    torch.testing.assert_close(moved[1][:, :, :3], coarse[:, :, 1:])


def test_features_that_are_no_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="only CHW maps"):
        FlowWarp("features").carry(torch.rand(49, 32), constant_flow(8, 8, 0, 0))


def test_propagators_keep_the_protocol_and_names_are_checked() -> None:
    assert isinstance(Copy(), Propagator) and isinstance(FlowWarp(), Propagator)
    with pytest.raises(UnknownNameError, match="did you mean 'flow_warp'"):
        build_propagator("flowwarp")
    with pytest.raises(ValueError, match="propagation level 'pixels'"):
        build_propagator("copy", level="pixels")
