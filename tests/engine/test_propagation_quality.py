"""Promise: each propagator does what it is for, at each level, and looking ahead pays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.toy import inputs, make_engine, moving_clip, plain, run, still_clip, truth


def agreement(clip: list[np.ndarray], **options: object) -> float:
    rows = run(make_engine(**options), inputs(clip))  # type: ignore[arg-type]
    return float(np.mean([truth(frame) == row.labels_HW for frame, row in zip(clip, rows, strict=True)]))


@pytest.mark.parametrize("sides", ["one", "two"])
@pytest.mark.parametrize("level", ["labels", "scores", "features"])
def test_on_a_still_video_flow_warp_gives_what_copy_gives(sides: str, level: str) -> None:
    """Exactly, for labels; interpolating maps rounds, which may decide between equal scores."""
    assert agreement(still_clip(7), propagator="copy", level=level, sides=sides, interval=3) == 1.0
    warped = agreement(still_clip(7), propagator="flow_warp", level=level, sides=sides, interval=3)
    assert warped == 1.0 if level == "labels" else warped > 0.995


@pytest.mark.parametrize("level", ["labels", "scores", "features"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_flow_beats_copy_and_two_sides_beat_one(level: str, seed: int) -> None:
    clip = moving_clip(25, seed=seed)
    copied = agreement(clip, propagator="copy", sides="one", level=level, interval=8)
    one = agreement(clip, sides="one", level=level, interval=8)
    two = agreement(clip, sides="two", level=level, interval=8)
    assert copied + 0.05 < one < two


def test_two_sides_help_copy_too() -> None:
    clip = moving_clip(25)
    sided = [agreement(clip, propagator="copy", sides=sides, interval=8) for sides in ("one", "two")]
    assert sided[0] < sided[1]


def test_rows_come_once_and_in_order() -> None:
    for sides in ("one", "two"):
        rows = run(make_engine("random", sides=sides, interval=4.0), inputs(moving_clip(30)))
        assert [row.frame_index for row in rows] == list(range(100, 130))


def test_both_sides_take_the_same_decisions() -> None:
    """Sides change masks, not the schedule."""
    clip = inputs(moving_clip(30))
    one, two = (
        plain(run(make_engine("warp_error", sides=sides, threshold=14.0), clip)) for sides in ("one", "two")
    )
    assert [row[:8] for row in one] == [row[:8] for row in two]
    assert 1 < sum(row[2] for row in one) < 30
