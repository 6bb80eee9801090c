"""Promise: whatever form a propagator has, its rows depend on the frames alone; it is shown what it asked for
and nothing else is made or kept; what it carries over survives a kill at any frame.

Why: a propagator that looks at frames reads pictures that only an engine step holds. One that was kept too
short would read the pixels of another frame, and nobody would see that in a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.toy import ConvNet, ThresholdNet, inputs, moving_clip, plain, run
from tests.episodes.scenes import CLASSES, records
from tests.pipeline.lookahead import Brightest
from vidseg_core.calibration.calibrate import check_dial_here
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig, SegmentConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.assemble import check_parts, describe_net
from vidseg_core.engine.bound import measure
from vidseg_core.engine.trial import try_net
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.models.plugin import PluginSegmenter
from vidseg_core.models.protocol import SegmenterError
from vidseg_core.propagation import DisFlow, FlowWarp
from vidseg_core.propagation.gap import FramePair, Gap, in_calls
from vidseg_core.registry import PluginError
from vidseg_core.scheduling import build_scheduler


class Moves:
    """What `flow_warp` does, as one that moves pairs; takes some before it gives the first."""

    needs_flow = True

    def __init__(self, level: Any = "labels", ahead: int = 3) -> None:
        self.level, self._ahead, self._warp = level, ahead, FlowWarp(level)

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        taken = []
        for pair in pairs:
            taken.append(self._warp.carry(pair.key.carried, pair.link.flow_hw2))
            if len(taken) > self._ahead:
                yield taken.pop(0)
        yield from taken


class Looks:
    """Where a frame has the brightness that the key had, the key's labels; else the class of its colours."""

    level, needs_flow, reads = "labels", False, "frame"

    def move(self, pairs: Iterable[FramePair]) -> Iterator[np.ndarray]:
        for pair in pairs:
            now_HW3, key_HW3 = pair.frame_HW3, pair.key.frame_HW3
            same_HW = cv2.absdiff(now_HW3, key_HW3).max(axis=2) < 20
            yield np.where(same_HW, pair.key.carried, now_HW3.argmax(axis=2)).astype(np.uint8)


class Remembers:
    """Labels of the frame before where the view is bright; elsewhere those of the key, turned."""

    level, needs_flow, reads = "labels", False, "view"

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        for gap in gaps:
            last_HW: Any = gap.memory.get("last", gap.left.carried)
            for frame in gap.frames:
                bright_HW = cv2.resize(frame.view, last_HW.shape[::-1]) > 128
                last_HW = np.where(bright_HW, last_HW, np.roll(gap.left.carried, frame.left.distance, 1))
                yield last_HW
            gap.memory = {"last": last_HW}


class Parted(ConvNet):
    """`ConvNet` in parts, counting what runs."""

    has_parts = True

    def __init__(self) -> None:
        super().__init__()
        self.lows, self.wholes = 0, 0

    def low(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        self.lows += len(frames_B3HW)
        return torch.relu(self.stem(frames_B3HW))

    def high(self, low: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return low, torch.relu(self.deep(low))

    def features(self, frames_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.wholes += len(frames_B3HW)
        return super().features(frames_B3HW)


class Sharp:
    """Fresh low-level features beside the key's high-level ones."""

    level, needs_flow, needs_low = "features", False, True

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        for pair in pairs:
            yield pair.low, pair.key.carried[1]


class Fusing(Parted):
    """Its fresh and its carried features are maps of their own."""

    has_fuse = True

    def fuse(self, low: Any, carried: Any) -> Any:
        return low, carried[1]


class Shares:
    """`Sharp`, by the net's own `fuse`."""

    level, needs_flow, needs_low = "features", False, True

    def use_net(self, net: Any) -> None:
        self._net = net

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        return in_calls(pairs, 2, lambda pair: pair.low.shape, self._fused)

    def _fused(self, pairs: list[FramePair]) -> list[Any]:
        return self._net.fuse([pair.low for pair in pairs], [pair.key.carried for pair in pairs])


class Sees:
    """Where its own net finds in the frame what it found in the key, the key's labels; else the other way round.
    Notes what it was shown."""

    level, needs_flow, reads = "labels", False, "frame"

    def __init__(self) -> None:
        self.kept = list[Any]()
        self.saw = list[Any]()

    def keep(self, key: Any) -> np.ndarray:
        self.kept.append(key)
        return cv2.blur(key.frame_HW3, (5, 5)) + key.carried[..., None]

    def see(self, frames: Sequence[Any]) -> Iterator[np.ndarray]:
        for frame in frames:
            self.saw.append(frame.view.tobytes())
            yield cv2.blur(frame.frame_HW3, (5, 5))

    def move(self, pairs: Iterable[FramePair]) -> Iterator[np.ndarray]:
        for pair in pairs:
            same_HW = cv2.absdiff(pair.seen, pair.key.kept).max(axis=2) < 20
            yield np.where(same_HW, pair.key.carried, pair.key.carried[:, ::-1]).astype(np.uint8)


class Recurs:
    """A state that passes through keys: half of the scores that come, half of what was there."""

    level, needs_flow = "scores", False

    def at_key(self, key: Any, memory: dict[str, np.ndarray]) -> tuple[Any, dict[str, np.ndarray]]:
        state_CHW = key.carried
        if "state" in memory:
            state_CHW = (state_CHW + torch.from_numpy(memory["state"])) / 2
        return state_CHW, {"state": state_CHW.numpy()}

    def fill(self, gaps: Sequence[Gap]) -> Iterator[Any]:
        for gap in gaps:
            state_CHW = torch.from_numpy(gap.memory["state"])
            for _ in gap.frames:
                state_CHW = torch.roll((state_CHW + gap.left.carried) / 2, 1, 2)
                yield state_CHW
            gap.memory = {"state": state_CHW.numpy()}


class LowDistance:
    """Key where low-level features are far from the key's."""

    needs_flow, avoids_corrupt, needs_low = False, True, True

    def __init__(self, threshold: float = 0.02) -> None:
        self.threshold = threshold

    def score(self, deviation: Any) -> float:
        return float((deviation.low - deviation.key_low).abs().mean())


EXAMPLES = ("looks", "sees", "remembers", "recurs", "sharp", "shares")


def engine(
    propagator: Any, *, sides: Any = "one", net: Any = None, scheduler: Any = None, **options: Any
) -> Engine:
    return Engine(
        net or ThresholdNet(),
        scheduler or build_scheduler("fixed", interval=5),
        propagator,
        sides=sides,
        max_interval=6,
        flow_size=48,
        **options,
    )


def parts(name: str, sides: Any = "one") -> Engine:
    if name in ("sharp", "shares"):
        propagator = Sharp() if name == "sharp" else Shares()
        return engine(propagator, sides=sides, net=Fusing(), scheduler=LowDistance())
    if name == "recurs":
        return engine(Recurs(), net=ConvNet())
    return engine({"looks": Looks, "sees": Sees, "remembers": Remembers}[name](), sides=sides)


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
    sees = Sees()
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


class Confused(Fusing):
    """Its `fuse` is not the identity where frame and key are one."""

    name = "tests.engine.test_gaps:Confused"

    def fuse(self, low: Any, carried: Any) -> Any:
        return low, carried[1] + 1


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


class Blind(Looks):
    """Says that it reads nothing, has a `fill`, and looks only if it is asked to."""

    reads = "nothing"

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        for gap in gaps:
            for _ in gap.frames:
                yield gap.left.carried


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


class Formless:
    level, needs_flow = "labels", False


@pytest.mark.parametrize(
    ("propagator", "message"),
    [
        (Peeks, "reads = 'frame'"),
        (GivesTooFew, "filled fewer frames"),
        (Forgets, "a dict of names and numpy arrays"),
        (Formless, "has no carry, move or fill"),
        (Sharp, "'ThresholdNet|'toy' has no parts"),
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


def test_whoever_fills_gaps_asks_for_them_itself() -> None:
    with pytest.raises(PluginError, match="asks the net for low-level features itself"):
        engine(LowBlind(), net=Parted(), sides="two")


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
    propagation = PropagationConfig(name="tests.engine.test_gaps:Hoards", sides="one")
    settings = SegmentConfig(input=("a",), output="b", segmenter="plain", propagation=propagation)
    with pytest.raises(ConfigError, match="--state_mb: is 256, but .*Hoards keeps .* with what it carries over"):
        describe_net(settings)


class Hoards(Remembers):
    """Carries two kilobytes over for each pixel."""

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        for gap in gaps:
            for _ in gap.frames:
                yield gap.left.carried
            gap.memory = {"much": np.zeros((*gap.left.carried.shape, 256))}


def settings_of(name: str, **options: Any) -> SegmentConfig:
    propagation = PropagationConfig(name=f"tests.engine.test_gaps:{name}")
    return SegmentConfig(input=("a",), output="b", segmenter="plain", propagation=propagation, **options)


def test_more_frames_than_the_state_may_hold_are_refused_before_the_run() -> None:
    longest = SchedulerConfig(max_interval=500)
    check_parts(settings_of("Remembers", scheduler=longest))  # flow pictures alone
    check_parts(settings_of("Looks", scheduler=longest, state_mb=1000))
    with pytest.raises(
        ConfigError, match="--state_mb: is 256, but .*Looks looks at frames, and 499 .* 428 MB"
    ):
        check_parts(settings_of("Looks", scheduler=longest))


def test_what_no_table_can_foresee_is_refused_by_tables_and_dial() -> None:
    with pytest.raises(ConfigError, match="--budget: needs masks that follow from a key and a frame each"):
        check_dial_here(settings_of("Remembers", budget=0.1))
    propagator: Any = Remembers()
    with pytest.raises(EpisodeError, match="'Remembers' fills whole gaps"):
        TableBuilder(
            TableOptions(),
            net=None,
            propagator=propagator,
            flow=DisFlow(),
            features=Features(("scores",)),
            classes=2,
        )
