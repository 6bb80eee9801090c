"""Promise: with low latency a key shows what is carried to it, and the net's result takes effect so many
frames later, whatever happens to the process in between.

Why: what stands in for a key's result cannot be made again from the key alone. If it were lost with the
process, a resumed stream would show other masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.toy import ConvNet, ThresholdNet, inputs, moving_clip, plain, run, truth
from vidseg_core.calibration.calibrate import check_dial_here
from vidseg_core.calibration.tasks import tried_names
from vidseg_core.config.dial import CalibrationConfig
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.assemble import check_parts
from vidseg_core.propagation import build_propagator
from vidseg_core.propagation.gap import Gap
from vidseg_core.scheduling import build_scheduler

CLIP = moving_clip(16)


def engine(
    delay: int | None, *, propagator: Any = "copy", level: str = "labels", net: Any = None, interval: int = 5
) -> Engine:
    return Engine(
        net or ThresholdNet(),
        build_scheduler("fixed", interval=interval),
        build_propagator(propagator, level=level) if isinstance(propagator, str) else propagator,
        sides="one",
        flow_size=48,
        delay=delay,
    )


class Lasts:
    """What the frame before showed, as it remembers it: `copy`, frame by frame."""

    level, needs_flow = "labels", False

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        for gap in gaps:
            for _ in gap.frames:
                last_HW: np.ndarray = gap.memory["last"] if gap.memory else gap.left.carried
                gap.memory = {"last": last_HW}
                yield last_HW


def expected(delay: int, interval: int) -> list[np.ndarray]:
    """Masks of `copy`, frame by frame: what is used, what is on its way, and until when."""
    used, coming, due, masks = truth(CLIP[0]), None, 0, []
    for t, frame_HW3 in enumerate(CLIP):
        if coming is not None and t >= due:
            used, coming = coming, None
        if t and t % interval == 0:
            used = coming if coming is not None else used
            coming, due = truth(frame_HW3), t + delay
        masks.append(used)
    return masks


@pytest.mark.parametrize("propagator", ["copy", Lasts()])
@pytest.mark.parametrize(("delay", "interval"), [(1, 5), (3, 5), (4, 5), (5, 5), (7, 5), (2, 1)])
def test_a_key_takes_effect_after_the_delay(delay: int, interval: int, propagator: Any) -> None:
    """Even where the propagator remembers: it begins anew with each result of the net."""
    rows = run(engine(delay, interval=interval, propagator=propagator), inputs(CLIP))
    assert [row.is_key for row in rows] == [t % interval == 0 for t in range(16)]
    assert [row.key_frame_index for row in rows] == [100 + t - t % interval for t in range(16)]
    for row, mask_HW in zip(rows, expected(delay, interval), strict=True):
        np.testing.assert_array_equal(row.labels_HW, mask_HW)


@settings(max_examples=20)
@given(
    propagator=st.sampled_from(["copy", "flow_warp"]),
    level=st.sampled_from(["labels", "scores", "features"]),
    delay=st.integers(1, 7),
    stores=st.sets(st.integers(0, 15)),
)
def test_storing_the_state_anywhere_changes_nothing(
    propagator: str, level: str, delay: int, stores: set[int]
) -> None:
    def parts() -> Engine:
        return engine(delay, propagator=propagator, level=level, net=ConvNet())

    frames = inputs(CLIP)
    undisturbed = plain(run(parts(), frames))
    here, state, rows = parts(), SegmentState.new(0, "s"), []
    for number, frame in enumerate(frames):
        rows += here.step([state], [frame])[0]
        if number in stores:
            here, state = parts(), SegmentState.from_bytes(state.to_bytes())
    assert plain(rows + here.finish([state])[0]) == undisturbed


class InATuple(ConvNet):
    """Features that are one map in a tuple, in a type with more bits than most."""

    def features(self, frames_B3HW: torch.Tensor) -> Any:
        return (super().features(frames_B3HW)[1].double() / 3,)

    def head(self, feats: Any) -> torch.Tensor:
        (maps,) = feats
        return functional.interpolate(maps[:, :6].float(), scale_factor=8.0)


def test_what_stands_in_has_its_form_and_every_bit_after_a_restore() -> None:
    here, state = (
        engine(9, propagator="flow_warp", level="features", net=InATuple()),
        SegmentState.new(0, "s"),
    )
    for frame in inputs(CLIP[:8]):
        here.step([state], [frame])
    assert state.key is not None
    (before,), (after,) = state.key.carried, SegmentState.from_bytes(state.to_bytes()).key.carried  # type: ignore
    assert after.dtype is torch.float64 and torch.equal(before, after)


def test_it_goes_with_one_side_and_no_look_ahead() -> None:
    with pytest.raises(ConfigError, match="goes with --propagation.sides one"):
        PropagationConfig(latency="low")
    ahead = SegmentConfig(
        input=("a",),
        output="b",
        segmenter="plain",
        scheduler=SchedulerConfig(name="planner"),
        propagation=PropagationConfig(latency="low", sides="one"),
    )
    with pytest.raises(ConfigError, match="--propagation.latency: low does not go with planner"):
        check_parts(ahead)


def test_a_propagator_that_says_what_keys_show_is_refused_with_it() -> None:
    options = {"name": "tests.engine.fillers:Recurs", "level": "scores", "sides": "one", "latency": "low"}
    late = SegmentConfig(
        input=("a",),
        output="b",
        segmenter="plain",
        propagation=PropagationConfig(**options),  # type: ignore
    )
    with pytest.raises(ConfigError, match="--propagation.latency: low does not go with .*Recurs, which says"):
        check_parts(late)


def test_the_dial_goes_with_it_but_for_schedulers_that_look_ahead() -> None:
    late = SegmentConfig(
        input=("a",),
        output="b",
        segmenter="plain",
        budget=0.1,
        propagation=PropagationConfig(latency="low", sides="one"),
    )
    check_dial_here(late)
    assert "planner" not in tried_names(late) and "fixed" in tried_names(late)
    with pytest.raises(ConfigError, match="'planner' looks ahead, which does not go with"):
        check_dial_here(replace(late, calibration=CalibrationConfig(schedulers=("planner",))))


def test_a_run_without_it_is_known_by_the_options_that_it_always_had() -> None:
    names = SegmentConfig(input=("a",), output="b", segmenter="plain").fingerprint_fields()
    assert not {"propagation.latency", "propagation.delay"} & set(names)
