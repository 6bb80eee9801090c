"""Promise: a dry run says what the net on every frame would take, and recommends it where a schedule saves
little.

Why: `tiny-face` with the default schedule was twice as fast as `every` and lost 26 points of fidelity, and
nothing said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.engine.fillers import LowDistance, Parted
from tests.engine.toy import moving_clip
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.engine import Engine
from vidseg_core.engine.bound import Bound
from vidseg_core.pipeline import pace
from vidseg_core.pipeline.pace import Pace, _fidelity, describe_pace
from vidseg_core.propagation import build_propagator
from vidseg_core.propagation.adaptation import most_bytes_of_pairs

CHEAP = Pace(
    frames=25,
    decode_s=0.003,
    between_s=0.006,
    key_s=0.012,
    key_share=1 / 12,
    every_s=0.013,
    fidelity=0.74,
    bound=lambda size: Bound(frames=0, bytes=0),
)
EXPENSIVE = replace(CHEAP, key_s=1.7, every_s=1.7, fidelity=None)


def test_a_net_as_cheap_as_propagation_is_to_run_on_every_frame() -> None:
    estimate, beside, advice = describe_pace(CHEAP, 1000, "fixed")
    assert "decoding 3.0 ms" in estimate and "the net 12.0 ms a key (8 % of frames)" in estimate
    assert "1.6 times as long" in beside and "fixed loses 26 points of fidelity" in beside
    assert "advice: take --scheduler.name every" in advice and "26 points" in advice


def test_a_net_that_costs_less_than_propagation_is_never_worth_a_schedule() -> None:
    *_, advice = describe_pace(replace(CHEAP, key_s=0.001, every_s=0.001), 1000, "fixed")
    assert "fixed saves nothing" in advice


def test_an_expensive_net_gets_the_figures_and_no_advice() -> None:
    _, beside = describe_pace(EXPENSIVE, 1000, "fixed")
    assert "--scheduler.name every" in beside and "11.3 times as long" in beside and "fidelity" not in beside


def test_every_is_not_compared_with_itself() -> None:
    assert len(describe_pace(CHEAP, 1000, "every")) == 1


def test_getting_used_to_keys_is_in_the_cost() -> None:
    """The frames that are tried end before the second key, the first that is learned from."""
    options = PropagationConfig(name="match", flow_size=32, adapt_steps=8)
    config = SegmentConfig(input=("-",), output="-", segmenter="plain", propagation=options)
    learning_s = pace._adapt_s(config, Shown(moving_clip(2)))  # type: ignore[arg-type]
    assert learning_s > 0
    every = replace(config, scheduler=SchedulerConfig(name="every"))
    assert pace._adapt_s(every, Shown([])) == 0, "there are no gaps"  # type: ignore[arg-type]
    learning = replace(CHEAP, adapt_s=2.4)
    assert learning.frame_s == pytest.approx(CHEAP.frame_s + 0.2)
    assert "getting used to a key 2.4 s, " in describe_pace(learning, 1000, "fixed")[0]
    assert "getting used" not in describe_pace(CHEAP, 1000, "fixed")[0]
    assert pace._adapt_s(replace(config, propagation=PropagationConfig()), Shown([])) == 0  # type: ignore[arg-type]


def test_what_a_net_keeps_to_learn_from_is_in_the_state() -> None:
    """The frames are tried without learning, and the state that is named was without it, too."""
    config = SegmentConfig(input=("-",), output="-", segmenter="plain")
    most = []
    for steps in (0, 8):
        options = PropagationConfig(name="match", flow_size=32, adapt_steps=steps)
        shown: Any = Shown(moving_clip(2))
        found = pace.measure_pace(replace(config, propagation=options), "cpu", "v", shown)
        most.append(found.bound((64, 64)).bytes)
    assert most[1] > most[0] + most_bytes_of_pairs(32, 32)


def test_the_part_of_the_net_that_every_frame_takes_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was in a key's cost again, so that schedules over low-level features looked more expensive."""
    now = [0.0]

    class Slow(Parted):
        """Its lower part takes 2 s, the rest 3 s."""

        def low(self, frames_B3HW: Any) -> Any:
            now[0] += 2
            return super().low(frames_B3HW)

        def high(self, low: Any) -> Any:
            now[0] += 3
            return super().high(low)

        def features(self, frames_B3HW: Any) -> Any:
            now[0] += 5
            return super().features(frames_B3HW)

    engine = Engine(Slow(), LowDistance(), build_propagator("copy"), sides="one", flow_size=48)
    engine.stats.clock = lambda: now[0]
    monkeypatch.setattr(pace, "build_engine", lambda config, device: engine)
    config = SegmentConfig(input=("-",), output="-", segmenter="plain")
    found = pace.measure_pace(config, "cpu", "v", Shown(moving_clip(6)))  # type: ignore[arg-type]
    assert (found.between_s, found.key_s, found.every_s) == (2.0, 3.0, 5.0)


class Shown:
    """A shard of these frames."""

    def __init__(self, clip: Sequence[Any]) -> None:
        self.frame_index, self.pts_s, self.is_corrupt = (
            range(len(clip)),
            [0.0] * len(clip),
            [False] * len(clip),
        )
        self.pictures = [
            SimpleNamespace(shape=frame.shape[:2], rgb=lambda frame=frame: frame, luma=lambda: None)
            for frame in clip
        ]
        self.cpu_s = 0.0

    def __len__(self) -> int:
        return len(self.pictures)


@pytest.mark.parametrize(("share", "frame_s"), [(0.0, 0.009), (1.0, 0.021)])
def test_a_frame_costs_its_share_of_keys(share: float, frame_s: float) -> None:
    assert replace(CHEAP, key_share=share).frame_s == pytest.approx(frame_s)


def test_frames_with_one_key_say_nothing_about_what_a_schedule_loses() -> None:
    """With an interval of 25 none of the 25 frames sees the next key, and 25 points were said to be lost."""
    config: Any = SegmentConfig(input=("a",), output="b", segmenter="plain")
    masks = [np.full((4, 4), number % 2, np.uint8) for number in range(25)]
    for interval, known in ((25, False), (12, True)):
        rows: Any = [
            SimpleNamespace(is_key=number % interval == 0, labels_HW=np.zeros((4, 4), np.uint8))
            for number in range(25)
        ]
        assert (_fidelity(config, rows, masks) is not None) == known
