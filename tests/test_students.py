"""Promise: `benchmarks.students` holds students and a teacher on key frames against each other where they
cost the same, says nothing beyond what was measured, and calls best what no cheaper way reaches.

Why: the teacher on every frame has the better masks and the student the shorter time; neither says which of
them to take.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import students
from benchmarks.clips import Marks, divided
from benchmarks.students import (
    EVERY,
    FIXED,
    PLAIN,
    PLANNER,
    TEMPORAL,
    Point,
    arguments,
    at_equal_cost,
    best,
    draw,
    leads,
    over_seeds,
    run,
    tables,
)
from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.training.match_clips import drawn_clip


def point(
    way: str, setting: str, net_ms: float, miou: float, *, other_ms: float = 1.0, seed: int = 0
) -> Point:
    return Point(
        set="s",
        seed=seed,
        way=way,
        setting=setting,
        interval=1.0,
        net_ms=net_ms,
        other_ms=other_ms,
        miou=miou,
        tc_pooled=55.0,
        tc=50.0,
        tc_visible=60.0,
        pop=-1.0 if way in (FIXED, PLANNER) else None,
    )


POINTS = [
    point(PLAIN, "small", 9.0, 60.0),
    point(TEMPORAL, "small", 9.0, 59.0),
    point(EVERY, "large", 99.0, 90.0),
    point(FIXED, "10", 9.0, 70.0, other_ms=6.0),
    point(FIXED, "20", 4.5, 50.0, other_ms=6.0),
]


def test_the_teacher_is_read_off_at_the_cost_of_the_student() -> None:
    reached = at_equal_cost(POINTS, FIXED, "miou", 12.5, 1.0)
    assert 50.0 < reached < 70.0  # between its two intervals
    assert at_equal_cost(POINTS, FIXED, "miou", 15.0, 1.0) == pytest.approx(70.0)
    assert math.isnan(at_equal_cost(POINTS, FIXED, "miou", 5.0, 1.0))  # cheaper than any interval
    assert math.isnan(at_equal_cost(POINTS, PLANNER, "miou", 12.5, 1.0))  # never measured


def test_what_is_best_depends_on_the_budget_and_on_what_nets_cost() -> None:
    assert [(p.way, p.ms(1.0)) for p in best(POINTS, "miou", 1.0)] == [
        (PLAIN, 10.0),
        (FIXED, 15.0),
        (EVERY, 100.0),
    ]
    expensive = [(p.way, p.setting) for p in best(POINTS, "miou", 10.0)]
    assert expensive == [(FIXED, "20"), (PLAIN, "small"), (FIXED, "10"), (EVERY, "large")]


def test_seeds_are_averaged_setting_by_setting() -> None:
    (mean,) = over_seeds([point(FIXED, "10", 9.0, 70.0), point(FIXED, "10", 11.0, 80.0, seed=1)])
    assert (mean.net_ms, mean.miou, mean.pop) == (10.0, 75.0, -1.0)


def test_what_keys_win_is_taken_seed_by_seed() -> None:
    """Nets of two seeds differ by more than two ways do."""
    known = [replace(p, net_ms=p.net_ms + 3) if p.way == PLAIN else p for p in POINTS]
    other = [replace(p, seed=1, miou=p.miou - (30 if p.way == PLAIN else 28)) for p in known]
    won = at_equal_cost(known, FIXED, "miou", 13.0, 1.0) - 60.0
    said = f"small    2 seeds  {won + 1:+.1f} +- 12.7 / +0.0 +- 0.0 / +0.0 +- 0.0"
    assert said in leads([*known, *other])
    cheap = [replace(p, seed=2, net_ms=1.0) if p.way == PLAIN else replace(p, seed=2) for p in known]
    assert said in leads([*known, *other, *cheap]), "a seed whose student is cheaper than any interval"


def test_pop_is_of_masks_that_jump_at_keys_and_of_none_where_all_are_keys() -> None:
    clip = drawn_clip(7, 5, (32, 48))
    still = np.zeros((32, 48), np.uint8)
    other = still.copy()
    other[:, 24:] = 1
    masks = [still, still, other, other, other]
    marks = Marks(material := divided("s", SCENE_CLASSES, [clip, clip]))
    marks.add(clip, masks, [True, False, True, False, False])
    assert marks.percent()["pop"] < -10.0
    alone = Marks(material)
    alone.add(clip, masks, [True] * 5)
    assert math.isnan(alone.percent()["pop"])


def test_rows_of_a_version_with_other_columns_are_left_out_and_stay_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had been measured for hours was gone with the next set or seed."""
    now, before = POINTS[0].__dict__, dict(POINTS[1].__dict__)
    del before["tc_pooled"]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([before, now, now | {"more": 1.0}]), encoding="utf-8")
    monkeypatch.setattr(students, "points_of", lambda *_: [POINTS[2]])
    options = arguments(["--json", str(path)])
    points = run([divided("t", SCENE_CLASSES, [drawn_clip(0, 2, (32, 32))] * 3)], tmp_path, options)
    assert points == [POINTS[0], POINTS[2]]
    assert "2 of 3 rows" in capsys.readouterr().out
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert rows == [before, now | {"more": 1.0}, now, POINTS[2].__dict__]


def test_in_miniature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = [drawn_clip(number, 9, (48, 64)) for number in range(3)]
    given = "--students tiny:8 --teacher tiny:8 --steps 1 --intervals 4 --prices 1 --times 1 10"
    options = arguments([*given.split(), "--json", str(tmp_path / "rows.json")])
    sets = [divided("scenes", SCENE_CLASSES, clips)]
    points = run(sets, tmp_path, options)
    assert [p.way for p in points] == [PLAIN, TEMPORAL, EVERY, FIXED, PLANNER]
    assert points[0].miou == points[2].miou  # one net, kept
    assert [p.interval for p in points[:4]] == [1.0, 1.0, 1.0, 3.0]  # keys at 0, 4 and 8
    assert [p.pop is None for p in points[:4]] == [True, True, True, False]
    assert all(p.net_ms > 0 and p.other_ms > 0 and 0 <= p.miou <= 100 for p in points)
    assert len(json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))) == 5
    (tmp_path / "rows.json").write_text(json.dumps([points[0].__dict__]), encoding="utf-8")
    assert run(sets, tmp_path, options) == points[:1]  # what is there is not run again
    draw(over_seeds(points), [1.0], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert "best mIoU from so many milliseconds on" in tables(over_seeds(points), options.times)
