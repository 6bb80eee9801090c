"""Promise: on a key frame the mask is what N says, whatever shares the step; and the rules that make keys.

A net that rounds differently for another batch size would make masks depend on how work was cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.toy import (
    ConvNet,
    ThresholdNet,
    inputs,
    make_engine,
    moving_clip,
    plain,
    run,
    still_clip,
    truth,
)
from vidseg_core.engine import Engine, FrameInput, SegmentState
from vidseg_core.propagation import build_propagator
from vidseg_core.scheduling import Deviation, build_scheduler


def run_directly(net: Any, frame_HW3: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(frame_HW3).permute(2, 0, 1)[None].float() / 255.0
    with torch.inference_mode():
        return net.head(net.features(pixels))[0].argmax(0).numpy().astype(np.uint8)


@pytest.mark.parametrize("level", ["labels", "scores", "features"])
@pytest.mark.parametrize("sides", ["one", "two"])
def test_masks_of_key_frames_equal_n_run_directly(level: str, sides: str) -> None:
    clip, net = moving_clip(17), ConvNet()
    rows = run(make_engine(net=net, level=level, sides=sides, interval=5), inputs(clip))
    keys = [row for row in rows if row.is_key]
    assert [row.frame_index for row in keys] == [100, 105, 110, 115]
    for row in keys:
        np.testing.assert_array_equal(row.labels_HW, run_directly(net, clip[row.frame_index - 100]))


def test_every_frame_is_key_with_every() -> None:
    clip = moving_clip(6)
    rows = run(make_engine("every"), inputs(clip, corrupt=[3]))
    assert all(row.is_key and row.key_frame_index == row.frame_index for row in rows)
    for row, frame_HW3 in zip(rows, clip, strict=True):
        np.testing.assert_array_equal(row.labels_HW, truth(frame_HW3))


def test_the_net_always_sees_batches_of_one_size() -> None:
    net = ThresholdNet()
    engine = make_engine("every", net=net, key_batch=3)
    states = [SegmentState.new(0, name) for name in "abcd"]
    engine.step(states, [inputs(moving_clip(1, seed=n))[0] for n in range(4)])
    engine.step(states[:2], [inputs(moving_clip(1, seed=n), first=200)[0] for n in range(2)])
    assert net.batches == [3, 3, 3]


def test_lanes_may_have_frames_of_different_size() -> None:
    small, large = moving_clip(8), moving_clip(8, height=56, width=72)
    engine = make_engine(net=ConvNet(), level="features", key_batch=2, interval=3)
    states = [SegmentState.new(0, "a"), SegmentState.new(0, "b")]
    rows: list[list[Any]] = [[], []]
    for pair in zip(inputs(small), inputs(large), strict=True):
        for lane, new in enumerate(engine.step(states, pair)):
            rows[lane] += new
    for lane, new in enumerate(engine.finish(states)):
        rows[lane] += new
    alone = make_engine(net=ConvNet(), level="features", key_batch=2, interval=3)
    assert plain(rows[0]) == plain(run(alone, inputs(small)))
    assert plain(rows[1]) == plain(run(alone, inputs(large)))


@pytest.mark.parametrize("scheduler", ["every", "fixed", "random", "frame_difference", "warp_error"])
def test_the_first_frame_of_a_segment_is_key(scheduler: str) -> None:
    first = run(make_engine(scheduler), inputs(still_clip(3)))[0]
    assert (first.is_key, first.decision_score, first.lkd, first.kar) == (True, math.inf, 0, 0.0)


def test_max_interval_forces_a_key_and_bounds_what_waits() -> None:
    engine = make_engine("frame_difference", threshold=300.0, max_interval=4)
    state, waiting, rows = SegmentState.new(0, "s"), [], []
    for frame in inputs(moving_clip(14)):
        rows += engine.step([state], [frame])[0]
        waiting.append(len(state.pending))
    assert max(waiting) == 3
    assert [row.frame_index for row in rows if row.is_key] == [100, 104, 108, 112]
    assert all(row.is_key == (row.decision_score > 300.0) for row in rows)


def test_a_damaged_frame_becomes_no_key_of_a_scoring_scheduler() -> None:
    clip = still_clip(8)
    clip[3] = np.zeros_like(clip[3])
    rows = run(make_engine("frame_difference", threshold=5.0), inputs(clip, corrupt=[3]))
    assert [row.is_key for row in rows] == [True] + [False] * 7
    assert rows[3].decision_score == -math.inf and rows[3].is_corrupt


def test_a_damaged_key_is_replaced_at_the_first_sound_frame() -> None:
    rows = run(make_engine("frame_difference", threshold=5.0), inputs(still_clip(5), corrupt=[0, 1]))
    assert [row.is_key for row in rows] == [True, False, True, False, False]


def test_a_step_that_raises_has_advanced_nothing() -> None:
    class FailsLater(ThresholdNet):
        def head(self, feats: Any) -> torch.Tensor:
            if len(self.batches) > 2:
                raise RuntimeError("out of memory")
            return super().head(feats)

    engine = make_engine(net=FailsLater(), interval=2)
    states = [SegmentState.new(0, "a"), SegmentState.new(0, "b")]
    clip = moving_clip(3)
    for frame in inputs(clip)[:2]:
        engine.step(states, [frame, frame])
    before = [state.to_bytes() for state in states]
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.step(states, [inputs(clip)[2]] * 2)
    assert [state.to_bytes() for state in states] == before


def test_frames_out_of_order_are_refused() -> None:
    engine, state = make_engine(), SegmentState.new(0, "s7")
    frame = inputs(still_clip(1))[0]
    engine.step([state], [frame])
    with pytest.raises(ValueError, match="s7.*100 after frame 100"):
        engine.step([state], [frame])


@pytest.mark.parametrize(
    "bad", [{"sides": "three"}, {"max_interval": 0}, {"flow_size": 0}, {"key_batch": 1.5}]
)
def test_bad_options_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Engine(ThresholdNet(), build_scheduler("every"), build_propagator("copy"), **bad)


def test_results_do_not_alias_the_frame_that_was_handed_in() -> None:
    """Frames live in shared memory that the decoder overwrites after the step."""
    clip = moving_clip(9)
    expected = plain(run(make_engine(level="features", interval=4), inputs(clip)))
    engine, state, rows = make_engine(level="features", interval=4), SegmentState.new(0, "s"), []
    buffer_HW3 = np.empty_like(clip[0])
    for number, frame_HW3 in enumerate(clip):
        buffer_HW3[:] = frame_HW3
        frame = FrameInput(
            frame_index=100 + number, pts_s=number / 25, is_corrupt=False, frame_HW3=buffer_HW3
        )
        rows += engine.step([state], [frame])[0]
        buffer_HW3[:] = 77
    assert plain(rows + engine.finish([state])[0]) == expected


def test_a_scheduler_that_reads_the_flow_must_say_so() -> None:
    class Liar:
        needs_flow, avoids_corrupt, threshold = False, False, 1.0

        def score(self, deviation: Deviation) -> float:
            return float(deviation.flow.mean())

    engine, state = Engine(ThresholdNet(), Liar(), build_propagator("copy")), SegmentState.new(0, "s")
    first, second = inputs(moving_clip(2))
    engine.step([state], [first])
    with pytest.raises(RuntimeError, match="needs_flow = True"):
        engine.step([state], [second])


def test_a_score_that_is_no_number_is_refused() -> None:
    class Broken:
        needs_flow, avoids_corrupt, threshold = False, False, 1.0

        def score(self, deviation: Deviation) -> float:
            return math.nan

    engine, state = Engine(ThresholdNet(), Broken(), build_propagator("copy")), SegmentState.new(0, "s")
    first, second = inputs(moving_clip(2))
    engine.step([state], [first])
    with pytest.raises(ValueError, match="Broken gave a score that is no number"):
        engine.step([state], [second])


def test_flow_nets_get_all_waiting_frames_in_one_call() -> None:
    calls: list[int] = []

    class Still:
        channels, chained = 3, False

        def flow(self, current: Sequence[np.ndarray], key: Sequence[np.ndarray]) -> list[np.ndarray]:
            calls.append(len(current))
            assert all(picture.shape == (36, 48, 3) for picture in [*current, *key])
            return [np.zeros((*picture.shape[:2], 2), np.float32) for picture in current]

    engine = Engine(
        ThresholdNet(), build_scheduler("fixed", interval=5), build_propagator(), flow=Still(), flow_size=48
    )
    states = [SegmentState.new(0, "a"), SegmentState.new(0, "b")]
    for frame in inputs(moving_clip(6)):
        engine.step(states, [frame, frame])
    assert calls == [16]


@pytest.mark.parametrize("sides", ["one", "two"])
def test_no_flow_is_estimated_for_keys_nor_for_copy(sides: str) -> None:
    clip = inputs(moving_clip(9))
    for options in ({"scheduler": "every"}, {"propagator": "copy", "interval": 3}):
        engine = make_engine(sides=sides, **options)  # type: ignore[arg-type]
        run(engine, clip)
        assert engine.stats.flows == 0
    engine = make_engine(sides=sides, interval=3)
    run(engine, clip)
    sided = {"one": 3 * (1 + 2), "two": 2 * 2 * (1 + 2) + (1 + 2)}
    assert (engine.stats.frames, engine.stats.keys, engine.stats.flows) == (9, 3, sided[sides])
