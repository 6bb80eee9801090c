"""Promise: what `benchmarks.temporal` says of an arm is the mean of paired differences, with its interval.

Why: nets of two seeds differ by more than any loss moves them; unpaired means would show luck.
"""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.temporal import half_width, table
from benchmarks.temporal_arms import Held
from vidseg_core.config.recipes import TemporalRecipe
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.training.teacher import Seen


def test_differences_are_those_of_the_seeds_that_both_have() -> None:
    def row(arm: str, seed: int, tc: float) -> dict[str, object]:
        found = {"miou": 50.0, "tc": tc, "tc_pooled": tc, "tc_visible": tc, "fps": 1.0}
        return {"set": "faces", "arm": arm, "seed": seed, **found}

    rows = [row("none", seed, 10.0 * seed) for seed in range(4)]
    rows += [row("temporal", seed, 10.0 * seed + 1 + seed) for seed in range(3)]
    line = next(line for line in table(rows).splitlines() if "temporal" in line)
    assert line.split()[:3] == ["faces", "temporal", "3"] and "+2.00 +- 2.48" in line


def test_the_interval_is_students() -> None:
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.30 / math.sqrt(3), rel=1e-3)
    assert half_width([1.0]) == math.inf


def test_neighbours_that_are_held_learn_nothing_from_the_loss_between_frames() -> None:
    config = TrainSegmenterConfig(
        data=("scenes:",), output="unused", temporal=TemporalRecipe(gap=1, labels=0.0, weight=1.0)
    )
    draws = torch.Generator().manual_seed(0)
    frames = [torch.rand(1, 3, 32, 32, generator=draws) for _ in range(3)]
    scores = [torch.rand(1, 2, 32, 32, generator=draws).requires_grad_() for _ in range(3)]
    held = Held(config, ("a", "b"), "cpu")
    for time in (0, 1):
        held._pair_in_time(frames, Seen(scores, scores), time).sum().backward()
    before, now, after = (each.grad for each in scores)
    assert before is None and after is None
    assert now is not None and now.abs().sum() > 0
