"""Promise: TC is what ETC Eq. 5 and 6 say, in both directions, and beside it the same over visible pixels:
every number equals one computed pixel by pixel in plain Python. Class ids are never mixed, void pixels count
nowhere, and a pop at a key is seen.

Once TC had a mask for occlusions that Eq. 5 has not, and was nine points above it on a street.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vidseg_core.metrics import PairFlow, TemporalConsistency
from vidseg_core.metrics.consistency import ABSOLUTE, RELATIVE, pooled_tc


def reference_direction(
    source: np.ndarray, target: np.ndarray, there: np.ndarray, back: np.ndarray, *, visible: bool
) -> list[tuple[int, int]]:
    """(target's class, warped class) of every pixel (`visible`: that is seen in both), one at a time."""
    height, width = target.shape
    pairs = []
    for y in range(height):
        for x in range(width):
            u, v = (float(part) for part in there[y, x])
            px, py = np.float32(x) + np.float32(u), np.float32(y) + np.float32(v)
            if visible and not comes_home(u, v, float(px), float(py), back):
                continue
            row, column = min(max(round(float(py)), 0), height - 1), min(max(round(float(px)), 0), width - 1)
            pairs.append((int(target[y, x]), int(source[row, column])))
    return pairs


def comes_home(u: float, v: float, x: float, y: float, back: np.ndarray) -> bool:
    height, width = back.shape[:2]
    if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
        return False
    home = bilinear(back, x, y)
    missed = (u + home[0]) ** 2 + (v + home[1]) ** 2
    return missed < RELATIVE * (u * u + v * v + home[0] ** 2 + home[1] ** 2) + ABSOLUTE


def bilinear(flow: np.ndarray, x: float, y: float) -> tuple[float, float]:
    height, width = flow.shape[:2]
    x0, y0 = math.floor(x), math.floor(y)
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    a, b = x - x0, y - y0
    corners = (
        ((1 - a) * (1 - b), flow[y0, x0]),
        (a * (1 - b), flow[y0, x1]),
        ((1 - a) * b, flow[y1, x0]),
        (a * b, flow[y1, x1]),
    )
    return (
        sum(share * float(vector[0]) for share, vector in corners),
        sum(share * float(vector[1]) for share, vector in corners),
    )


def reference_tc(pairs: list[tuple[int, int]], classes: int, void: int | None = None) -> float:
    pairs = [pair for pair in pairs if void not in pair]
    scores = []
    for label in range(classes):
        both = sum(1 for a, b in pairs if a == label and b == label)
        either = sum(1 for a, b in pairs if a == label or b == label)
        if either:
            scores.append(both / either)
    return sum(scores) / len(scores) if scores else math.nan


def smooth_flow(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
    """A gentle field; quarters, so that float32 coordinates are exact and no rounding rule matters."""
    coarse = rng.normal(0, scale, (2, 3, 2))
    y, x = np.mgrid[0:height, 0:width]
    field = coarse[0, 0] + coarse[1, 1] * (x / width)[..., None] + coarse[0, 2] * (y / height)[..., None]
    return (np.round(field * 4) / 4 + 0.125).astype(np.float32)


WAYS = (False, True)


@pytest.mark.parametrize("void", [None, 3])
@pytest.mark.parametrize("seed", range(6))
def test_both_directions_with_and_without_occlusion_equal_the_pixel_by_pixel_reference(
    seed: int, void: int | None
) -> None:
    rng = np.random.default_rng(seed)
    height, width, classes = 14, 18, 4
    backward = smooth_flow(rng, height, width, 1.5)
    forward = -backward + (rng.random((height, width, 1)) < 0.2) * rng.integers(-3, 4, (height, width, 2))
    forward = forward.astype(np.float32)
    tc = TemporalConsistency(classes, void=void)
    found: dict[tuple[bool, bool], list[tuple[int, int]]] = {(v, f): [] for v in WAYS for f in WAYS}
    for _ in range(3):
        before, current = rng.integers(0, classes, (2, height, width)).astype(np.uint8)
        own = tc.update(before, current, PairFlow(backward, forward), at_key=False)
        for visible in WAYS:
            here = reference_direction(before, current, backward, forward, visible=visible)
            mine = own.tc_visible if visible else own.tc
            assert mine == pytest.approx(reference_tc(here, classes, void), abs=1e-12)
            found[visible, False] += here
            found[visible, True] += reference_direction(current, before, forward, backward, visible=visible)
    assert 0 < len(found[True, False]) < len(found[False, False]) == 3 * height * width
    for visible, counts in ((False, tc), (True, tc.visible)):
        assert counts.tc == pytest.approx(reference_tc(found[visible, False], classes, void), abs=1e-12)
        assert counts.tc_forward == pytest.approx(
            reference_tc(found[visible, True], classes, void), abs=1e-12
        )
    known = [pair for pair in found[False, False] if void not in pair]
    assert tc.accuracy == pytest.approx(sum(a == b for a, b in known) / len(known))
    assert np.nanmean(tc.class_tc) == pytest.approx(tc.tc)


@given(
    masks=st.lists(arrays(np.uint8, (2, 5, 6), elements=st.integers(0, 3)), min_size=1, max_size=6),
    cut=st.integers(0, 6),
)
def test_tc_of_sequences_at_once_is_that_of_one_long_sequence(masks: list[np.ndarray], cut: int) -> None:
    flow = np.zeros((5, 6, 2), np.float32)
    whole, parts = TemporalConsistency(4), [TemporalConsistency(4), TemporalConsistency(4)]
    for place, (before_HW, now_HW) in enumerate(masks):
        for tc in (whole, parts[place < cut]):
            tc.update(before_HW, now_HW, PairFlow(flow, flow), at_key=bool(place % 2))
    pooled_C = pooled_tc([part.class_overlap for part in parts])
    np.testing.assert_allclose(pooled_C, whole.class_tc, rtol=1e-12)
    assert np.nanmean(pooled_C) == pytest.approx(whole.tc)


def test_a_few_flickering_pixels_of_another_class_count_as_such_over_all_sequences() -> None:
    """In the mean over sequences one pixel of 400 takes a third of a sequence's TC."""
    flow, found = np.zeros((20, 20, 2), np.float32), []
    labels_HW = np.repeat(np.arange(2, dtype=np.uint8), 10)[:, None].repeat(20, 1)
    for speck in (False, True):
        there_HW, tc = labels_HW.copy(), TemporalConsistency(3)
        there_HW[0, 0] = 2 if speck else 0
        tc.update(labels_HW, there_HW, PairFlow(flow, flow), at_key=False)
        found.append(tc)
    third = TemporalConsistency(3)
    third.update(labels_HW + 1, labels_HW + 1, PairFlow(flow, flow), at_key=False)  # where that class is
    sequences = [*found, third]
    mean, pooled_C = np.mean([tc.tc for tc in sequences]), pooled_tc([tc.class_overlap for tc in sequences])
    assert mean < 0.9 and pooled_C.min() > 0.99


def test_a_mask_that_moves_with_its_picture_has_tc_one() -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[5:12, 6:15] = 3
    moved = np.roll(labels, (2, 4), axis=(0, 1))
    to_before = np.broadcast_to(np.array([-4, -2], np.float32), (20, 30, 2)).copy()
    tc = TemporalConsistency(4)
    assert tc.update(labels, moved, PairFlow(to_before, -to_before), at_key=False).tc_visible == 1.0
    still = TemporalConsistency(4)
    still.update(labels, moved, PairFlow(0 * to_before, 0 * to_before), at_key=False)
    assert still.tc < 0.9


def test_flow_of_another_size_is_scaled_with_its_vectors() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[10:24, 12:30] = 1
    moved = np.roll(labels, (4, 8), axis=(0, 1))
    to_before = np.broadcast_to(np.array([-4, -2], np.float32), (20, 30, 2)).copy()
    tc = TemporalConsistency(2)
    assert tc.update(labels, moved, PairFlow(to_before, -to_before), at_key=False).tc_visible == 1.0


def test_occluded_pixels_count_by_eq_5_and_not_among_the_visible_ones() -> None:
    flow = np.zeros((8, 10, 2), np.float32)
    lost = flow.copy()
    lost[:, :3] = 5.0  # these do not come home
    before, current = np.zeros((2, 8, 10), np.uint8)
    current[:, :3] = 1
    tc = TemporalConsistency(2)
    own = tc.update(before, current, PairFlow(flow, lost), at_key=False)
    assert tc.visible.tc == own.tc_visible == 1.0
    assert tc.tc == own.tc == pytest.approx((56 / 80 + 0) / 2) and own.accuracy == 56 / 80


@pytest.mark.parametrize(("occlusion", "every", "visible"), [("no", True, False), ("yes", False, True)])
def test_what_is_not_asked_for_is_not_counted(occlusion: Any, every: bool, visible: bool) -> None:
    flow, labels = np.zeros((8, 10, 2), np.float32), np.zeros((8, 10), np.uint8)
    tc = TemporalConsistency(2, occlusion=occlusion)
    own = tc.update(labels, labels, PairFlow(flow, flow), at_key=False)
    assert [not math.isnan(value) for value in (own.tc, tc.tc, own.accuracy)] == [every] * 3
    assert [not math.isnan(value) for value in (own.tc_visible, tc.visible.tc)] == [visible] * 2


def test_a_jump_at_a_key_is_a_pop() -> None:
    flow = np.zeros((8, 10, 2), np.float32)
    near, far = np.zeros((8, 10), np.uint8), np.zeros((8, 10), np.uint8)
    near[:4], far[:6] = 1, 1
    pair, tc = PairFlow(flow, flow), TemporalConsistency(2)
    assert math.isnan(tc.tc) and math.isnan(tc.pop)
    for masks, at_key in ((near, near), False), ((near, near), False), ((near, far), True):
        tc.update(*masks, pair, at_key=at_key)
    assert tc.tc_inside == 1.0 and tc.pop == pytest.approx((4 / 6 + 2 / 4) / 2 - 1.0)


def test_masks_and_flows_must_go_together() -> None:
    flow = np.zeros((8, 10, 2), np.float32)
    with pytest.raises(ValueError, match="of one size"):
        PairFlow(flow, flow[:4])
    with pytest.raises(ValueError, match="differ in shape"):
        TemporalConsistency(2).update(
            np.zeros((8, 10), np.uint8), np.zeros((4, 10), np.uint8), PairFlow(flow, flow), at_key=False
        )
