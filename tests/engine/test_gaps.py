"""Promise: whatever form a propagator has, its rows depend on the frames alone; it is shown what it asked for
and nothing else is made or kept; what it carries over survives a kill at any frame.

Why: a propagator that looks at frames reads pictures that only an engine step holds. One that was kept too
short would read the pixels of another frame, and nobody would see that in a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.fillers import (
    EXAMPLES,
    Blind,
    Looks,
    LowDistance,
    Moves,
    Parted,
    Recurs,
    Sees,
    Sharp,
    engine,
    parts,
    settings_of,
)
from tests.engine.toy import ConvNet, ThresholdNet, inputs, moving_clip, plain, run
from tests.episodes.scenes import CLASSES, records
from tests.pipeline.lookahead import Brightest
from vidseg_core.calibration.calibrate import check_dial_here
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import PropagationConfig
from vidseg_core.engine import SegmentState
from vidseg_core.engine.trial import try_net
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.models.plugin import PluginSegmenter
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.propagation import DisFlow, FlowWarp
from vidseg_core.propagation.gap import FramePair, Gap
from vidseg_core.registry import PluginError


@pytest.mark.parametrize("sides", ["one", "two"])
@pytest.mark.parametrize("level", ["labels", "scores", "features"])
def test_the_same_propagator_in_two_forms_gives_the_same_rows(level: Any, sides: Any) -> None:
    frames = inputs(moving_clip(12))
    warped, moved = (
        plain(run(engine(form(level), sides=sides, net=ConvNet()), frames)) for form in (FlowWarp, Moves)
    )
    assert warped == moved


@settings(max_examples=30)
@given(
    name=st.sampled_from(EXAMPLES),
    sides=st.sampled_from(["one", "two"]),
    stores=st.sets(st.integers(0, 13)),
    corrupt=st.sets(st.integers(0, 13), max_size=3),
)
def test_storing_the_state_anywhere_changes_nothing(
    name: str, sides: Any, stores: set[int], corrupt: set[int]
) -> None:
    frames = inputs(moving_clip(14), corrupt=sorted(corrupt))
    undisturbed = plain(run(parts(name, sides), frames))
    here, state, rows = parts(name, sides), SegmentState.new(0, "s"), []
    for number, frame in enumerate(frames):
        rows += here.step([state], [frame])[0]
        if number in stores:
            here, state = parts(name, sides), SegmentState.from_bytes(state.to_bytes())
    assert plain(rows + here.finish([state])[0]) == undisturbed


@pytest.mark.parametrize("name", EXAMPLES)
def test_three_lanes_give_what_one_lane_gives(name: str) -> None:
    clips = [inputs(moving_clip(10, seed=n)) for n in range(3)]
    alone = [plain(run(parts(name), clip, name=str(n))) for n, clip in enumerate(clips)]
    together, states = parts(name), [SegmentState.new(0, str(n)) for n in range(3)]
    rows: list[list[Any]] = [[], [], []]
    for frames in zip(*clips, strict=True):
        for lane, new in zip(rows, together.step(states, frames), strict=True):
            lane += new
    for lane, new in zip(rows, together.finish(states), strict=True):
        lane += new
    assert [plain(lane) for lane in rows] == alone


def test_the_lower_part_runs_once_a_frame_and_the_whole_never() -> None:
    net = Parted()
    rows = run(engine(Sharp(), net=net, scheduler=LowDistance()), inputs(moving_clip(12)))
    assert 1 < sum(row.is_key for row in rows) < 12
    assert net.lows == 12 and net.wholes == 0


def test_the_nets_own_fuse_gives_what_the_propagator_would() -> None:
    frames = inputs(moving_clip(12))
    assert plain(run(parts("shares"), frames)) == plain(run(parts("sharp"), frames))


def test_a_net_of_the_propagators_own_sees_each_frame_once_and_a_key_is_kept_once() -> None:
    sees = Sees()
    rows = run(engine(sees, sides="two"), inputs(moving_clip(12)))
    assert len(sees.kept) == sum(row.is_key for row in rows) == 3
    assert len(sees.saw) == len(set(sees.saw)) == 12 - 3


def test_tables_see_each_frame_once_too() -> None:
    sees: Any = Sees()
    builder = TableBuilder(
        TableOptions(flow_size=48, min_frames=5, horizon=6, two_sided_stride=3),
        net=None,
        propagator=sees,
        flow=DisFlow(),
        features=Features(("frame_difference",)),
        classes=CLASSES,
    )
    builder.build("clip", 0, records(10))
    assert (len(sees.saw), len(sees.kept)) == (10, 10)


def test_what_a_key_shows_may_depend_on_the_frames_before_it() -> None:
    frames = inputs(moving_clip(12))
    alone = run(engine(Recurs(), net=ConvNet()), frames[5:])
    rows = run(engine(Recurs(), net=ConvNet()), frames)
    assert rows[5].is_key and alone[0].is_key
    assert (rows[5].labels_HW != alone[0].labels_HW).any()


@pytest.mark.parametrize("options", [{"sides": "two"}, {"delay": 3}])
def test_what_says_what_keys_show_goes_with_one_side_and_no_delay(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Recurs"):
        engine(Recurs(), net=ConvNet(), **options)


class Confused(ThresholdNet):
    """Its `fuse` is not the identity where frame and key are one."""

    def low(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        return frames_B3HW

    def high(self, low: torch.Tensor) -> torch.Tensor:
        return low

    def fuse(self, low: torch.Tensor, carried: torch.Tensor) -> torch.Tensor:
        return (low + carried) / 3


def test_a_fuse_that_changes_a_frame_that_is_its_own_key_is_refused_before_the_run() -> None:
    net = PluginSegmenter(Confused(), spec="confused", digest="0")
    with pytest.raises(SegmenterError, match=r"fuse\(low\(frames\), features\(frames\)\) is not features"):
        try_net(net, sizes=[(48, 64)])


def test_only_what_is_read_waits() -> None:
    def waiting(propagator: Any) -> Any:
        here, state = engine(propagator, sides="two"), SegmentState.new(0, "s")
        for frame in inputs(moving_clip(3)):
            here.step([state], [frame])
        return state.pending[-1]

    assert waiting(Looks()).rgb_HW3.shape == (48, 64, 3)
    assert waiting(FlowWarp()).rgb_HW3 is None and waiting(FlowWarp()).view.shape == (36, 48)
    assert waiting(Blind()).view.size == 0


class LowBlind(Blind):
    needs_low = True


class Peeks(Blind):
    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        yield gaps[0].frames[0].frame_HW3[..., 0]


class GivesTooFew(Blind):
    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        return iter(())


class Forgets(Blind):
    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        gaps[0].memory = {"label": 3}  # type: ignore[dict-item]
        yield gaps[0].left.carried


class SeesTooFew(Sees):
    def see(self, frames: Sequence[Any]) -> Iterator[np.ndarray]:
        return iter(())


class PassesOn(Blind):
    remembers = True


class Formless:
    level, needs_flow = "labels", False


@pytest.mark.parametrize(
    ("propagator", "message"),
    [
        (Peeks, "reads = 'frame', or 'colours' for colours_hw3"),
        (GivesTooFew, "filled fewer frames"),
        (Forgets, "a dict of names and numpy arrays"),
        (Formless, "has no carry, move or fill"),
        (Sharp, "'ThresholdNet|'toy' has no parts"),
        (PassesOn, "says remembers, which goes with fill and --propagation.sides two"),
        (SeesTooFew, "saw 0 frames, but was given 1"),
    ],
)
def test_what_does_not_fit_is_one_sentence(propagator: Any, message: str) -> None:
    with pytest.raises((PluginError, RuntimeError, SegmenterError), match=message):
        run(engine(propagator()), inputs(moving_clip(3)))


def test_frames_wait_with_their_pictures_for_a_propagator_that_reads_low_level_features() -> None:
    net = Parted()
    rows = run(engine(Sharp(), net=net, scheduler=Brightest()), inputs(moving_clip(12)))
    assert [row.frame_index for row in rows] == list(range(100, 112)) and net.lows == 12


def test_low_level_features_that_only_the_scheduler_reads_do_not_wait_with_the_frames() -> None:
    """They are larger than the frame; ninety of them filled the memory of a worker."""
    here = engine(FlowWarp(), sides="two", net=Parted(), scheduler=LowDistance(threshold=9.0))
    state = SegmentState.new(0, "s")
    for frame in inputs(moving_clip(4)):
        here.step([state], [frame])
    assert [frame.low_maps for frame in state.pending] == [None, None, None]


def test_with_two_sides_low_level_features_are_made_when_a_gap_is_filled() -> None:
    net = Parted()
    here, state = engine(Sharp(), net=net, sides="two"), SegmentState.new(0, "s")
    frames = inputs(moving_clip(12))
    for frame in frames[:4]:
        here.step([state], [frame])
    assert net.lows == 1 and [frame.low_maps for frame in state.pending] == [None, None, None]
    for frame in frames[4:]:
        here.step([state], [frame])
    here.finish([state])
    assert net.lows == 12 and net.wholes == 0


class Tints(Sharp):
    """Adds the colours of key and frame to what it carries; notes their sizes."""

    reads = "colours"
    sizes: ClassVar[set[tuple[int, ...]]] = set()

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        for pair in pairs:
            self.sizes.update({pair.colours_hw3.shape, pair.key.colours_hw3.shape})
            tint = float(pair.colours_hw3.mean() - pair.key.colours_hw3.mean()) / 255.0
            yield pair.low, pair.key.carried[1] + tint


@pytest.mark.parametrize("sides", ["one", "two"])
def test_colours_have_flow_size_even_where_whole_frames_are_kept_for_the_net(sides: Any) -> None:
    Tints.sizes.clear()
    run(engine(Tints(), net=Parted(), sides=sides), inputs(moving_clip(7)))
    assert Tints.sizes == {(36, 48, 3)}


def test_whoever_fills_gaps_asks_for_them_itself() -> None:
    with pytest.raises(PluginError, match="asks the net for low-level features itself"):
        engine(LowBlind(), net=Parted(), sides="two")


def test_what_no_table_can_foresee_is_refused_by_tables_and_dial() -> None:
    carrier = PropagationConfig(name="tests.engine.fillers:Recurs", level="scores", sides="one")
    with pytest.raises(ConfigError, match="--budget: needs masks that follow from the key before them"):
        check_dial_here(replace(settings_of("Remembers", budget=0.1), propagation=carrier))
    checked = replace(settings_of("Remembers", budget=0.1), propagation=PropagationConfig(name="match"))
    with pytest.raises(ConfigError, match="match remembers through keys; --propagation.self_check false"):
        check_dial_here(checked)
    propagator: Any = Recurs()
    with pytest.raises(EpisodeError, match="'Recurs' remembers through keys"):
        TableBuilder(
            TableOptions(),
            net=None,
            propagator=propagator,
            flow=DisFlow(),
            features=Features(("scores",)),
            classes=2,
        )
