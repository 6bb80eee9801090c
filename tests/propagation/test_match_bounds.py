"""Promise: `benchmarks.match_bounds` says of any choice between flow and the net what masks made by it would
be worth, and no choice is above its bounds.

Why: it never makes these masks, but counts once and chooses afterwards.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.match_bounds import (
    CHOICES,
    Counts,
    Watched,
    best_classes,
    best_extent,
    extent,
    mean_iou,
    pixelwise,
    said_by,
    tally,
)
from benchmarks.two_sided import Clip
from benchmarks.two_sided import mean_iou as of_masks
from tests.propagation.test_match import gap, halves
from vidseg_core.models.match import MatchFacts, new_match
from vidseg_core.propagation.self_check import FLOW, PART, WHOLE

CLASSES = 3


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_what_a_choice_is_worth_is_what_its_masks_are_worth(seed: int) -> None:
    random = np.random.default_rng(seed)
    flow, net, true = random.integers(0, CLASSES, (3, 6, 7)).astype(np.uint8)
    true[0, :2] = 255
    apart = random.integers(0, 2, (6, 7)).astype(np.uint8)
    clip = Clip(name="", classes=CLASSES, frames=[], labels=[true])
    counts_T = tally(flow, net, true, apart, clip)
    masks = {FLOW: flow, WHOLE: net, PART: np.where(apart, net, flow)}
    worth = {name: 100 * of_masks([mask_HW], clip) for name, mask_HW in masks.items()}
    for name, points in worth.items():
        assert np.isclose(mean_iou(said_by(counts_T, extent(name, counts_T))), points)
    either = np.where((flow == true) | (net == true), true, flow).astype(np.uint8)
    assert np.isclose(mean_iou(pixelwise(counts_T)), 100 * of_masks([either], clip))
    gap = Counts(counts_T, [counts_T, counts_T], WHOLE)
    best = mean_iou(said_by(counts_T, best_extent(gap)))
    assert np.isclose(best, max(worth.values()))
    assert mean_iou(said_by(counts_T, best_classes(gap))) >= worth[FLOW] - 1e-9
    for choose in CHOICES.values():
        assert mean_iou(said_by(counts_T, choose(gap))) <= mean_iou(pixelwise(counts_T)) + 1e-9


def test_what_flow_and_net_say_at_both_ends_is_kept() -> None:
    """The self-check's way of asking was renamed, and nothing was counted any more."""
    watched = Watched(new_match(MatchFacts(eye=8, trunk=8, branch=8, reach=1)))
    watched.said = []
    watched.close(gap(halves(3, 7), halves(7, 3)))
    assert [said_hw.dtype for said_hw in watched.said] == [np.uint8] * 4
