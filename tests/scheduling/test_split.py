"""Promise: `split` takes keys where the two sides of a gap disagree, and at the end where one side knows too
little, pays N once for each key, and takes the same keys in the engine, on tables, for any lanes and after
any restore.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.engine.toy import ThresholdNet, inputs, moving_clip, plain, truth
from vidseg_core.calibration.grids import lookahead_runs
from vidseg_core.calibration.tasks import SampleTasks, tried_names
from vidseg_core.calibration.ways import refused
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.scheduler import SchedulerConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.engine.frames import FrameInput, FrameResult
from vidseg_core.engine.look import make_view
from vidseg_core.engine.regions import RegionEngine, RegionStates
from vidseg_core.episodes.on_tables import keys_on
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.metrics.confusion import IGNORE_INDEX
from vidseg_core.propagation import build_propagator
from vidseg_core.scheduling import LookaheadWindow, build_scheduler
from vidseg_core.scheduling.lookahead_window import Plan, class_shares, lookahead_labels
from vidseg_core.scheduling.split import AT_END, STRIDE, Gaps


class Counting(ThresholdNet):
    """Counts the frames that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = 0

    def features(self, frames_B3HW: Any) -> Any:
        self.shown += len(frames_B3HW)
        return super().features(frames_B3HW)


def engine(
    price: float, *, level: str = "labels", most: int = 24, net: Any = None, sides: Any = "two"
) -> Engine:
    return Engine(
        net or ThresholdNet(),
        build_scheduler("split", threshold=price),
        build_propagator("flow_warp", level=level),
        sides=sides,
        max_interval=most,
        flow_size=64,
    )


def run(one: Any, frames: Sequence[FrameInput], state: Any = None) -> list[FrameResult]:
    state = state or SegmentState.new(0, "s")
    rows = [row for frame in frames for row in one.step([state], [frame])[0]]
    return rows + one.finish([state])[0]


def keys(rows: Sequence[FrameResult]) -> list[int]:
    return [row.frame_index - 100 for row in rows if row.is_key]


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    """A bright disc that moves, then stands still."""
    moving = moving_clip(40)
    return [*moving, *[moving[-1]] * 40]


def test_keys_are_where_the_sides_disagree_and_few_where_nothing_moves(clip: list[np.ndarray]) -> None:
    found = keys(run(engine(0.2), inputs(clip)))
    moving, still = [k for k in found if k < 40], [k for k in found if k >= 48]
    assert len(moving) >= 2 * len(still)
    assert max(np.diff([*found, len(clip)])) <= 24
    expensive = keys(run(engine(1e6), inputs(clip)))
    assert expensive == [0, 24, 48, 72], "what must be"
    cheap = keys(run(engine(0.0), inputs(moving_clip(25))))
    assert set(np.diff(cheap)) <= {STRIDE, 2 * STRIDE} and set(expensive[:2]) <= set(cheap)


@pytest.mark.parametrize("level", ["labels", "scores", "features"])
def test_the_net_runs_once_for_each_key(clip: list[np.ndarray], level: str) -> None:
    net = Counting()
    rows = run(engine(0.3, net=net, level=level), inputs(clip))
    assert net.shown == len(keys(rows))
    for row in rows:
        if row.is_key:
            assert np.array_equal(row.labels_HW, truth(clip[row.frame_index - 100]))
    assert [row.frame_index for row in rows] == list(range(100, 180))


@pytest.mark.parametrize("level", ["labels", "scores"])
@pytest.mark.parametrize("corrupt", [(), (24, 25, 12, 48), tuple(range(20, 30))])
def test_a_stored_state_goes_on_as_if_nothing_had_been(
    clip: list[np.ndarray], level: str, corrupt: tuple[int, ...]
) -> None:
    frames = inputs(clip, corrupt=corrupt)
    straight = run(engine(0.3, level=level), frames)
    state, rows = SegmentState.new(0, "s"), []
    for number, frame in enumerate(frames):
        rows += engine(0.3, level=level).step([state], [frame])[0]
        if number % 5 == 1:
            state = SegmentState.from_bytes(state.to_bytes())
    assert plain(rows + engine(0.3, level=level).finish([state])[0]) == plain(straight)
    undamaged = {row.frame_index - 100 for row in straight if row.is_key} - set(corrupt)
    assert len(undamaged) >= len(keys(straight)) - 1


def test_segments_do_not_feel_each_other(clip: list[np.ndarray]) -> None:
    others = [inputs(clip), inputs(clip[::-1]), inputs(moving_clip(80))]
    alone = [run(engine(0.3), frames) for frames in others]
    one, states = engine(0.3), [SegmentState.new(0, "s") for _ in others]
    rows: list[list[FrameResult]] = [[] for _ in others]
    for frames in zip(*others, strict=True):
        for mine, new in zip(rows, one.step(states, frames), strict=True):
            mine += new
    for mine, new in zip(rows, one.finish(states), strict=True):
        mine += new
    assert list(map(plain, rows)) == list(map(plain, alone))


def table_of(clip: Sequence[np.ndarray]) -> EpisodeTable:
    grays = [make_view(frame_HW3, 64, 1) for frame_HW3 in clip]
    masks = [lookahead_labels(truth(f), *gray.shape) for f, gray in zip(clip, grays, strict=True)]
    return EpisodeTable(
        clip="a",
        segment=0,
        quality_TL1=np.ones((len(clip), 25), np.float32),
        deviation_TL1F=np.zeros((len(clip), 25, 1), np.float32),
        feature_names=("frame_difference",),
        grays_Thw=np.stack(grays),
        masks_Thw=np.stack(masks),
    )


def test_tables_and_engine_take_the_same_keys(clip: list[np.ndarray]) -> None:
    prices = [0.05, 0.3, 2.0]
    full = moving_clip(25)  # its one window is full: that it ends here an engine cannot know yet
    for frames in (clip, full):
        on_table = keys_on(table_of(frames), "split", prices, max_interval=24)
        assert [np.flatnonzero(row).tolist() for row in on_table] == [
            keys(run(engine(price), inputs(frames))) for price in prices
        ]


def test_a_table_weighs_classes_as_its_first_mask_has_them() -> None:
    moving = moving_clip(45)
    full = np.broadcast_to(moving[0].max(axis=(0, 1)), moving[0].shape)
    table = table_of([full] * 3 + moving)  # one class in the first frame, three later
    assert table.masks_Thw is not None
    own, first = replace(table, class_shares_K=None), class_shares(table.masks_Thw[0])
    found = [
        keys_on(each, "split", [8.0], max_interval=24) for each in (own, replace(table, class_shares_K=first))
    ]
    assert np.array_equal(found[0], found[1])


def test_a_damaged_first_frame_says_nothing_of_classes(clip: list[np.ndarray]) -> None:
    frames = inputs([np.zeros_like(clip[0]), *clip[1:3]], corrupt=[0])
    one, whole, state = regions(0.3), SegmentState.new(0, "s"), RegionStates.new(0, "s", 2)
    for frame in frames:
        engine(0.3).step([whole], [frame])
        one.step([state], [frame])
    for each in (whole, *state.states):
        assert each.class_shares_K == pytest.approx(class_shares(truth(clip[1])))


class Asking:
    """Asks about one place."""

    asks, window, stride = True, 1, 3

    def __init__(self, place: int) -> None:
        self.place = place

    def plan(self, window: LookaheadWindow) -> Plan:
        yield [self.place]
        return [self.place]


@pytest.mark.parametrize("place", [0, -3, 4, 27])
def test_places_that_cannot_be_key_are_not_asked_about(clip: list[np.ndarray], place: int) -> None:
    own = Engine(ThresholdNet(), Asking(place), build_propagator("copy"), max_interval=24, flow_size=64)
    with pytest.raises(ValueError, match=r"asks for masks of frames from 3 to 24 in steps of 3, not \["):
        run(own, inputs(clip))


def test_an_interval_shorter_than_its_stride_is_refused_and_not_tried(clip: list[np.ndarray]) -> None:
    config = SegmentConfig(input=("a",), output="b", segmenter="plain", budget=1.0)
    own = lookahead_runs(config, [table_of(clip[:9])], SampleTasks(config, []), ("split",), share=1.0)[
        "split"
    ]
    assert own.about["max_interval"] == STRIDE
    short = SchedulerConfig(name="split", max_interval=STRIDE - 1)
    assert "is 2, but split chooses keys every 3 frames" in refused(config, config.propagation, short)


def test_the_dial_tries_it_with_an_interval_that_goes_with_its_budget(clip: list[np.ndarray]) -> None:
    config = SegmentConfig(input=("a",), output="b", segmenter="plain", budget=0.2)
    table = table_of(clip)
    own = lookahead_runs(config, [table], SampleTasks(config, []), ("fixed", "split"), share=0.2)["split"]
    assert own.about == {"name": "split", "max_interval": 12}
    assert np.array_equal(own.runs[0], keys_on(table, "split", own.prices, max_interval=12))
    assert own.runs[0].sum(axis=1).tolist() == sorted(own.runs[0].sum(axis=1), reverse=True)
    one = replace(config, propagation=PropagationConfig(sides="one"))
    assert "split" in tried_names(config) and "split" not in tried_names(one)


def regions(price: float, grid: str = "1x2", **options: Any) -> RegionEngine:
    return RegionEngine(engine(price), RegionsConfig(grid=grid, overlap=0, **options))


def test_a_region_where_nothing_happens_pays_nothing(clip: list[np.ndarray]) -> None:
    still = [np.concatenate([frame_HW3, clip[0]], axis=1) for frame_HW3 in clip[:40]]
    state = RegionStates.new(0, "s", 2)
    one, rows = regions(0.3), []
    for frame in inputs(still):
        rows += one.step([state], [frame])[0]
        state = RegionStates.from_bytes(state.to_bytes())
    rows += one.finish([state])[0]
    taken = np.array([row.region_keys for row in rows]).sum(axis=0)
    assert taken[0] >= taken[1] + 2
    assert taken[1] == 2, "the first frame and a key ahead, but none at the end"


def test_up_to_the_end_a_key_is_taken_where_the_last_one_cannot_know_the_frames() -> None:
    """Nothing moves in the first: as for a region of a short clip, its first key is its only one."""
    moving = moving_clip(22)
    assert keys(run(engine(0.3), inputs([moving[0]] * 22))) == [0]
    found = keys(run(engine(0.3), inputs(moving)))
    place = int(AT_END * 21) // STRIDE * STRIDE
    assert place in found and len(found) > 2, (
        "at three quarters of the way; gaps and the rest are looked at, too"
    )


def test_what_the_last_key_cannot_know_is_what_moves_and_what_its_picture_does_not_explain() -> None:
    window = halves()
    assert Gaps(window).alone() == 0.0
    bright = np.full_like(window.grays[0], 200)
    flickering = replace(window, grays=[window.grays[0], bright, window.grays[0]])
    assert Gaps(flickering).alone() == pytest.approx(2.0), (
        "every pixel of one frame, of two classes of a half"
    )


def test_regions_count_classes_of_the_whole_frame(clip: list[np.ndarray]) -> None:
    state = RegionStates.new(0, "s", 2)
    regions(0.3).step([state], [inputs(clip)[0]])
    for each in state.states:
        assert each.class_shares_K == pytest.approx(class_shares(truth(clip[0])))
        assert each.area == 0.5


def halves() -> LookaheadWindow:
    """Three frames in which nothing moves, one half of each class 1."""
    labels = np.zeros((40, 50), np.uint8)
    labels[:20] = 1
    return LookaheadWindow(
        grays=[np.zeros((40, 50), np.uint8)] * 3,
        labels_hw=labels,
        sound_T=np.ones(3, bool),
        ends=False,
        two_sided=True,
        max_interval=2,
    )


def test_what_a_pixel_costs_is_the_first_order_of_mean_iou() -> None:
    window = halves()
    other = window.labels_hw.copy()
    other[20, :10] = 1  # 10 pixels more of class 1
    gaps = Gaps(window)
    gaps.masks[2] = other
    (cost,) = gaps.differ(0, 2)
    iou = np.mean([1000 / 1010, 990 / 1000])
    assert cost == pytest.approx(1 - iou, rel=0.02)
    half = Gaps(replace(window, area=0.5))
    half.masks[2] = other
    assert half.differ(0, 2)[0] == pytest.approx(cost / 2)


def test_what_passes_between_two_keys_is_noticed() -> None:
    """Both keys say that there is nothing, and are wrong alike."""
    empty = np.full((48, 64, 3), (120, 100, 60), np.uint8)
    clip = [empty.copy() for _ in range(49)]
    for number in range(30, 44):
        left = 3 * (number - 30)
        clip[number][16:32, left : left + 16] = (0, 10, 60)
    found = keys(run(engine(0.3), inputs(clip)))
    assert any(30 <= key < 44 for key in found), found


def test_what_n_is_not_sure_of_counts_nowhere() -> None:
    window = halves()
    gaps = Gaps(window)
    gaps.masks[2] = np.full_like(window.labels_hw, IGNORE_INDEX)
    assert gaps.differ(0, 2)[0] == 0.0


def test_one_side_and_joined_regions_are_refused() -> None:
    with pytest.raises(ValueError, match="goes with two sides"):
        engine(1.0, sides="one")
    with pytest.raises(ConfigError, match="asks for masks ahead"):
        regions(1.0, context="joint")
