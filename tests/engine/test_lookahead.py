"""Promise: a scheduler that looks ahead may do so whatever comes in between: a stored state, other lanes, a
step that failed, damaged frames, the end. Frames come out once, in order, with the keys that were planned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.toy import ThresholdNet, inputs, moving_clip, plain, truth
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.frames import FrameInput, FrameResult
from vidseg_core.propagation import build_propagator
from vidseg_core.scheduling import LookaheadWindow, WindowScheduler
from vidseg_core.scheduling.lookahead_window import lookahead_keys, lookahead_labels, lookahead_view


class Brightest:
    """Key at the brightest frame of each window, of those that may be one."""

    def __init__(self, window: int = 8, stride: int = 2) -> None:
        self.window, self.stride = window, stride
        self.shown: list[np.ndarray] = []

    def plan(self, window: LookaheadWindow) -> list[int]:
        self.shown.append(window.labels_hw)
        places = [p for p in range(self.stride, window.frames, self.stride) if window.sound_T[p]]
        return [max(places, key=lambda p: float(window.grays[p].mean()))] if places else []


class Never:
    """Plans nothing."""

    window, stride = 6, 1

    def plan(self, window: LookaheadWindow) -> list[int]:
        return []


class Wrong(Never):
    """Plans the window's own first frame."""

    def plan(self, window: LookaheadWindow) -> list[int]:
        return [0]


def ahead(
    scheduler: Any = None, *, sides: Any = "two", level: str = "labels", max_interval: int = 90
) -> Engine:
    return Engine(
        ThresholdNet(),
        scheduler or Brightest(),
        build_propagator("flow_warp", level=level),
        sides=sides,
        max_interval=max_interval,
        flow_size=48,
    )


def run(engine: Engine, frames: Sequence[FrameInput]) -> list[FrameResult]:
    state = SegmentState.new(0, "s")
    rows = [row for frame in frames for row in engine.step([state], [frame])[0]]
    return rows + engine.finish([state])[0]


def keys(rows: Sequence[FrameResult]) -> list[int]:
    return [row.frame_index - 100 for row in rows if row.is_key]


def brightest_keys(clip: Sequence[np.ndarray], window: int = 8, stride: int = 2) -> list[int]:
    """The same keys, written another way."""
    found = [0]
    while True:
        last = found[-1]
        places = range(last + stride, min(last + window + 1, len(clip)), stride)
        if not places:
            return found
        found.append(max(places, key=lambda p: float(_gray(clip[p]).mean())))


def _gray(frame_HW3: np.ndarray) -> np.ndarray:
    from vidseg_core.engine.look import make_view

    return make_view(frame_HW3, 48, 1)


def test_both_kinds_of_schedulers_are_told_apart() -> None:
    assert isinstance(Brightest(), WindowScheduler)


@pytest.mark.parametrize("sides", ["one", "two"])
@pytest.mark.parametrize("level", ["labels", "scores"])
def test_frames_come_out_once_in_order_with_the_planned_keys(sides: str, level: str) -> None:
    clip = moving_clip(31)
    rows = run(ahead(sides=sides, level=level), inputs(clip))
    assert [row.frame_index for row in rows] == list(range(100, 131))
    assert keys(rows) == brightest_keys(clip)
    assert all(row.is_key == (row.decision_score > 0.5) for row in rows)
    for row in rows:
        if row.is_key:
            assert np.array_equal(row.labels_HW, truth(clip[row.frame_index - 100]))


@pytest.mark.parametrize("sides", ["one", "two"])
@pytest.mark.parametrize("level", ["labels", "features"])
def test_a_stored_state_goes_on_as_if_nothing_had_been(sides: str, level: str) -> None:
    frames = inputs(moving_clip(26), corrupt=(5, 6, 12))
    straight = run(ahead(sides=sides, level=level), frames)
    state, rows = SegmentState.new(0, "s"), []
    for number, frame in enumerate(frames):
        rows += ahead(sides=sides, level=level).step([state], [frame])[0]
        if number % 3 == 1:
            state = SegmentState.from_bytes(state.to_bytes())
    assert plain(rows + ahead(sides=sides, level=level).finish([state])[0]) == plain(straight)


@pytest.mark.parametrize("window", [8, 30])
@pytest.mark.parametrize("max_interval", [9, 10, 20])
def test_a_damaged_stretch_costs_no_frame(max_interval: int, window: int) -> None:
    """Damaged candidates leave the forced key, which need not be a multiple of the stride."""
    scheduler = Brightest(window=window, stride=4)
    frames = inputs(moving_clip(45), corrupt=(4, 8, 12, 16, 20))
    rows = run(ahead(scheduler, max_interval=max_interval), frames)
    assert [row.frame_index for row in rows] == list(range(100, 145))
    assert max(np.diff([0, *keys(rows)])) <= max_interval


def test_lanes_do_not_influence_each_other() -> None:
    clips = [inputs(moving_clip(20 + 3 * n, seed=n)) for n in range(3)]
    alone = [plain(run(ahead(), clip)) for clip in clips]
    engine, states = ahead(), [SegmentState.new(0, "s") for _ in clips]
    rows: list[list[FrameResult]] = [[] for _ in clips]
    for t in range(max(map(len, clips))):
        live = [n for n, clip in enumerate(clips) if t < len(clip)]
        made = engine.step([states[n] for n in live], [clips[n][t] for n in live])
        for n, part in zip(live, made, strict=True):
            rows[n] += part
    for part, rest in zip(rows, engine.finish(states), strict=True):
        part += rest
    assert [plain(part) for part in rows] == alone


def test_a_step_that_failed_may_be_repeated() -> None:
    frames = inputs(moving_clip(24))
    straight = plain(run(ahead(), frames))

    class Shaky(ThresholdNet):
        def features(self, frames_B3HW: Any) -> Any:
            self.batches.append(1)
            if len(self.batches) % 2:
                raise RuntimeError("out of memory")
            return frames_B3HW

    engine = ahead()
    engine.net.segmenter = Shaky()
    state, rows, failed = SegmentState.new(0, "s"), [], 0
    for frame in frames:
        for _ in range(20):
            try:
                rows += engine.step([state], [frame])[0]
                break
            except RuntimeError:
                failed += 1
    while True:
        try:
            rows += engine.finish([state])[0]
            break
        except RuntimeError:
            failed += 1
    assert failed > 2
    assert plain(rows) == straight


def test_damaged_frames_are_no_keys_and_a_damaged_start_is_left_at_once() -> None:
    rows = run(ahead(), inputs(moving_clip(24), corrupt=(0, 1, 4, 6, 8, 10)))
    assert keys(rows)[:2] == [0, 2]
    assert not set(keys(rows)[1:]) & {1, 4, 6, 8, 10}


@pytest.mark.parametrize("max_interval", [5, 6])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_window_longer_than_an_interval_may_be_changes_no_rule(max_interval: int, stride: int) -> None:
    """What waits beyond the longest interval has its picture when its turn to become key comes."""
    frames = moving_clip(33)
    rows = run(ahead(Brightest(11, stride), max_interval=max_interval), inputs(frames))
    assert [row.frame_index for row in rows] == list(range(100, 133))
    grays = [lookahead_view(_gray(frame)) for frame in frames]
    wanted = lookahead_keys(
        Brightest(11, stride).plan,
        11,
        stride,
        grays,
        lambda key: lookahead_labels(truth(frames[key]), *grays[key].shape),
        two_sided=True,
        max_interval=max_interval,
    )
    assert keys(rows) == wanted and max(np.diff(wanted)) <= max_interval


@given(
    st.sets(st.integers(1, 28), max_size=26),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(4, 9),
)
def test_whatever_is_damaged_every_frame_comes_out(
    corrupt: set[int], window: int, stride: int, max_interval: int
) -> None:
    """A frame that has to become key while it waits has its picture."""
    if min(window, max_interval) < stride:
        return
    frames = inputs(moving_clip(30), corrupt=tuple(corrupt))
    rows = run(ahead(Brightest(window, stride), max_interval=max_interval), frames)
    assert [row.frame_index for row in rows] == list(range(100, 130))
    assert max(np.diff([*keys(rows), 30])) <= max_interval
    engine = ahead(Brightest(window, stride), max_interval=max_interval)
    state, again = SegmentState.new(0, "s"), []
    for frame in frames:
        again += engine.step([state], [frame])[0]
        if frame.frame_index % 4 == 2:
            state = SegmentState.from_bytes(state.to_bytes())
    assert plain(again + engine.finish([state])[0]) == plain(rows)


def test_what_plans_nothing_gets_a_key_at_the_end_of_each_window() -> None:
    assert keys(run(ahead(Never()), inputs(moving_clip(20)))) == [0, 6, 12, 18]
    assert keys(run(ahead(Never(), max_interval=4), inputs(moving_clip(9)))) == [0, 4, 8]
    assert keys(run(ahead(Never(), max_interval=4), inputs(moving_clip(8)))) == [0, 4]


def test_no_more_frames_wait_than_the_window_holds() -> None:
    engine, state = ahead(), SegmentState.new(0, "s")
    for frame in inputs(moving_clip(40)):
        engine.step([state], [frame])
        assert len(state.waiting) <= 8
        assert sum(waiting.frame_HW3 is not None for waiting in state.waiting) <= 4


def test_a_plan_sees_the_mask_of_the_last_key() -> None:
    clip, scheduler = moving_clip(20), Brightest()
    run(ahead(scheduler), inputs(clip))
    masks = [lookahead_labels(truth(clip[key]), *_gray(clip[key]).shape) for key in brightest_keys(clip)]
    assert len(scheduler.shown) >= len(masks) - 1
    for shown_hw, mask_hw in zip(scheduler.shown, masks, strict=False):
        assert np.array_equal(shown_hw, mask_hw)


def test_a_plan_of_impossible_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="a plan names increasing frames from 1 to 6"):
        run(ahead(Wrong()), inputs(moving_clip(20)))


def test_a_stride_beyond_the_longest_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="chooses keys every 5 frames, but max_interval is 3"):
        ahead(Brightest(10, 5), max_interval=3)
