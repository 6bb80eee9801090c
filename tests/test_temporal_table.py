"""Promise: what `benchmarks.temporal` says of an arm is the mean of paired differences, with its interval;
what is chosen is chosen on clips that teach otherwise, never on those that it is reported for.

Why: nets of two seeds differ by more than any loss moves them; unpaired means would show luck. And a weight
that was the best of several on the reported clips is luck, too.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.clips import divided, halved
from benchmarks.temporal import Bench, half_width, table, to_choose
from benchmarks.temporal_arms import GAP, Held, arm, named
from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.config.recipes import TemporalRecipe
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.training.match_clips import drawn_clip
from vidseg_core.training.teacher import Seen


def row(arm: str, seed: int, tc: float) -> dict[str, object]:
    found = {"miou": 50.0, "tc": tc, "tc_pooled": tc, "tc_visible": tc, "fps": 1.0}
    return {"set": "faces", "arm": arm, "seed": seed, **found}


def test_differences_are_those_of_the_seeds_that_both_have() -> None:
    rows = [row("none", seed, 10.0 * seed) for seed in range(4)]
    rows += [row("temporal", seed, 10.0 * seed + 1 + seed) for seed in range(3)]
    line = next(line for line in table(rows).splitlines() if "temporal" in line)
    assert line.split()[:3] == ["faces", "temporal", "3"] and "+2.00 +- 2.48" in line


def test_an_arm_may_be_a_weight_and_a_sharpness() -> None:
    what = arm(named("0.15@4.4"), "davis")
    assert (what.weight, what.sharpness, what.held, what.distil) == (0.15, 4.4, False, None)
    assert (what.gap, arm("0.15@4.4@1", "davis").gap) == (GAP, 1)
    for wrong in ("half", "0.15", "much@4.4", "1@4.4@one"):
        with pytest.raises(ValueError):
            named(wrong)
    assert "0.15@4.4" in table([row("none", 0, 1.0), row("0.15@4.4", 0, 2.0)])


def test_settings_are_chosen_on_clips_that_teach_otherwise(tmp_path: Path) -> None:
    clips = [drawn_clip(number, 2, (32, 32)) for number in range(9)]
    material = divided("scenes", SCENE_CLASSES, clips)
    names = [{clip.name for clip in to_choose(material).test}, {clip.name for clip in material.test}]
    assert all(names) and names[0].isdisjoint(names[1])
    assert names[0] < {clip.name for clip in material.train}

    setting = {"steps": 1, "weight": 0.0, "sharpness": 1.0, "dice": 1.0, "focus": 0.3}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row("none", 0, 1.0) | setting | {"choose": True}]), encoding="utf-8")
    options = argparse.Namespace(json=str(path), steps=1)
    found = [
        len(Bench([], argparse.Namespace(**vars(options), choose=c), tmp_path).rows) for c in (True, False)
    ]
    assert found == [1, 0]


def test_of_the_street_the_second_half_is_left_out() -> None:
    """One clip alone: divided by clips nothing would be left to measure."""
    clip = drawn_clip(0, 5, (32, 32))
    material = halved("street", SCENE_CLASSES, [clip])
    (first,), (second,) = material.train, material.test
    assert (len(first.frames_THW3), len(second.frames_THW3)) == (2, 3)
    assert first.labels_THW is not None and second.labels_THW is not None and clip.labels_THW is not None
    assert (np.concatenate([first.frames_THW3, second.frames_THW3]) == clip.frames_THW3).all()
    assert (np.concatenate([first.labels_THW, second.labels_THW]) == clip.labels_THW).all()


def test_rows_of_other_settings_stay_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To choose with the file of what was reported would have cost what had been measured for hours."""
    path, material = (
        tmp_path / "rows.json",
        divided("scenes", SCENE_CLASSES, [drawn_clip(0, 2, (32, 32))] * 3),
    )
    reported = row("none", 0, 1.0) | {"set": "scenes", "choose": False}
    path.write_text(json.dumps([reported]), encoding="utf-8")
    options = {
        "json": str(path),
        "steps": 1,
        "seeds": [0],
        "arms": ["none"],
        "choose": True,
        "until": math.inf,
    }
    bench = Bench([material], argparse.Namespace(**options), tmp_path)
    monkeypatch.setattr(bench, "_row", lambda *_: row("none", 0, 2.0) | {"set": "scenes", "choose": True})
    bench.run()
    assert [each["tc"] for each in json.loads(path.read_text(encoding="utf-8"))] == [1.0, 2.0]


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
