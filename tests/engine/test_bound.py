"""Promise: what may be kept of a segment is known beforehand, and more than `--state_mb` is refused before
anything is claimed.

Why: ninety frames of a segment that wait with their pictures or features can fill the memory of a worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tests.engine.fillers import Blind, Looks, Recurs, Remembers, engine, settings_of
from tests.engine.toy import ConvNet, ThresholdNet, inputs, moving_clip
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.assemble import check_parts, describe_net
from vidseg_core.engine.bound import measure
from vidseg_core.engine.regions import RegionEngine
from vidseg_core.propagation import FlowWarp
from vidseg_core.propagation.gap import Gap
from vidseg_core.scheduling import build_scheduler


def test_what_may_wait_is_known_beforehand() -> None:
    size = (48, 64)
    frame, view = 48 * 64 * 3, 36 * 48
    blind = engine(Blind(), sides="two").bound(size)
    looks = engine(Looks(), sides="two").bound(size)
    assert blind.frames == looks.frames == 5
    assert looks.bytes - blind.bytes == 5 * (frame + view) + 2 * frame


def test_a_keys_features_and_what_is_carried_over_are_measured_on_states() -> None:
    here, state = engine(Recurs(), net=ConvNet(), sides="one"), SegmentState.new(0, "s")
    here.step([state], inputs(moving_clip(1)))
    measured, scores = measure(state, (48, 64)), 6 * 4 * 48 * 64
    assert here.bound((48, 64), measured).bytes - here.bound((48, 64)).bytes == 2 * scores
    twice = here.bound((96, 64), measured).bytes - here.bound((96, 64)).bytes
    assert twice == 4 * scores


def test_with_low_latency_a_keys_own_result_waits_too() -> None:
    at_once, late = (engine(FlowWarp(), delay=delay).bound((48, 64)).bytes for delay in (None, 3))
    assert late - at_once == 48 * 64


def test_more_than_the_state_may_hold_is_refused_for_what_is_carried_over_too() -> None:
    propagation = PropagationConfig(name="tests.engine.test_bound:Hoards", sides="one")
    settings = SegmentConfig(input=("a",), output="b", segmenter="plain", propagation=propagation)
    with pytest.raises(
        ConfigError, match="--state_mb: is 256, but .*Hoards keeps .* with what it carries over"
    ):
        describe_net(settings)


class Hoards(Remembers):
    """Carries two kilobytes over for each pixel."""

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        for gap in gaps:
            for _ in gap.frames:
                yield gap.left.carried
            gap.memory = {"much": np.zeros((*gap.left.carried.shape, 256))}


def test_more_frames_than_the_state_may_hold_are_refused_before_the_run() -> None:
    longest = SchedulerConfig(max_interval=500)
    check_parts(settings_of("Remembers", scheduler=longest))  # flow pictures alone
    check_parts(settings_of("Looks", scheduler=longest, state_mb=1000))
    with pytest.raises(
        ConfigError, match="--state_mb: is 256, but .*Looks looks at frames, and 499 .* 428 MB"
    ):
        check_parts(settings_of("Looks", scheduler=longest))


def test_masks_of_regions_that_wait_count_before_the_run_as_they_do_in_it() -> None:
    longest, regions = SchedulerConfig(max_interval=500), RegionsConfig(grid="2x2", overlap=0)
    alike = Engine(
        ThresholdNet(),
        build_scheduler("fixed"),
        Looks(),  # type: ignore[arg-type]
        sides="two",
        max_interval=500,
        flow_size=256,
    )
    kept = RegionEngine(alike, regions)
    needed = -(-kept.bound((512, 512)).bytes // 1_000_000)
    check_parts(settings_of("Looks", scheduler=longest, regions=regions, state_mb=needed))
    with pytest.raises(ConfigError, match=f"{needed} MB"):
        check_parts(settings_of("Looks", scheduler=longest, regions=regions, state_mb=needed - 1))
