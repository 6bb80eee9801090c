"""Promise: rows depend on the frames, the seed and the segment's name alone.

Not on how many segments share a step, not on where the state was stored and restored. A run that was killed
and resumed must not differ in one bit from one that was not.
"""

from __future__ import annotations

from typing import Any

import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.toy import ConvNet, inputs, make_engine, moving_clip, plain, run
from vidseg_core.engine import SegmentState

SCHEDULERS: list[tuple[str, dict[str, Any]]] = [
    ("every", {}),
    ("fixed", {"interval": 4}),
    ("random", {"interval": 3.0}),
    ("frame_difference", {"threshold": 20.0}),
    ("flow_magnitude", {"threshold": 3.0}),
    ("warp_error", {"threshold": 14.0}),
]


@settings(max_examples=60)
@given(
    scheduler=st.sampled_from(SCHEDULERS),
    level=st.sampled_from(["labels", "scores", "features"]),
    sides=st.sampled_from(["one", "two"]),
    propagator=st.sampled_from(["copy", "flow_warp"]),
    stores=st.sets(st.integers(0, 11)),
    corrupt=st.sets(st.integers(0, 11), max_size=3),
    seed=st.integers(0, 2**63 - 1),
)
def test_storing_the_state_anywhere_changes_nothing(
    scheduler: tuple[str, dict[str, Any]],
    level: str,
    sides: str,
    propagator: str,
    stores: set[int],
    corrupt: set[int],
    seed: int,
) -> None:
    name, options = scheduler
    settings_of = {"net": ConvNet(), "propagator": propagator, "level": level, "sides": sides}
    frames = inputs(moving_clip(12), corrupt=sorted(corrupt))
    undisturbed = run(make_engine(name, max_interval=6, **settings_of, **options), frames, seed=seed)

    engine = make_engine(name, max_interval=6, **settings_of, **options)
    state, rows = SegmentState.new(seed, "s"), []
    for number, frame in enumerate(frames):
        rows += engine.step([state], [frame])[0]
        if number in stores:
            state = SegmentState.from_bytes(state.to_bytes())
            engine = make_engine(name, max_interval=6, **settings_of, **options)
    assert plain(rows + engine.finish([state])[0]) == plain(undisturbed)


@pytest.mark.parametrize(("name", "options"), SCHEDULERS)
@pytest.mark.parametrize("level", ["labels", "features"])
def test_five_lanes_give_what_one_lane_gives(name: str, options: dict[str, Any], level: str) -> None:
    clips = [inputs(moving_clip(10 + n, seed=n)) for n in range(5)]
    alone = [
        plain(run(make_engine(name, net=ConvNet(), level=level, key_batch=2, **options), clip, name=str(n)))
        for n, clip in enumerate(clips)
    ]
    engine = make_engine(name, net=ConvNet(), level=level, key_batch=2, **options)
    states = [SegmentState.new(0, str(n)) for n in range(5)]
    rows: list[list[Any]] = [[] for _ in clips]
    for t in range(max(map(len, clips))):
        here = [n for n in range(5) if t < len(clips[n])]
        ended = [n for n in range(5) if t == len(clips[n])]
        for n, new in zip(ended, engine.finish([states[n] for n in ended]), strict=True):
            rows[n] += new
        for n, new in zip(
            here, engine.step([states[n] for n in here], [clips[n][t] for n in here]), strict=True
        ):
            rows[n] += new
    rows[4] += engine.finish(states[4:])[0]
    assert [plain(lane) for lane in rows] == alone


def test_opencv_threads_change_nothing() -> None:
    before, results = cv2.getNumThreads(), []
    try:
        for threads in (1, 2, 4):
            cv2.setNumThreads(threads)
            results.append(plain(run(make_engine("warp_error", threshold=14.0), inputs(moving_clip(12)))))
    finally:
        cv2.setNumThreads(before)
    assert results[0] == results[1] == results[2]


def test_random_keys_follow_seed_and_segment_name_alone() -> None:
    frames = inputs(moving_clip(40))

    def keys(name: str, seed: int) -> list[bool]:
        engine = make_engine("random", propagator="copy", interval=3.0)
        return [row.is_key for row in run(engine, frames, name=name, seed=seed)]

    assert keys("a", 1) == keys("a", 1)
    assert keys("a", 1) != keys("a", 2)
    assert keys("a", 1) != keys("b", 1)
