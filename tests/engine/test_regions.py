"""Promise: a region of a frame is a segment of crops: its rows are those of an engine that sees nothing else,
whatever lanes share a step and wherever the state is stored; a frame is what its regions' rows say together.

Why: were anything of a neighbour in a region's rows (a key, a flow picture, a kernel chosen by the number of
crops), masks would depend on the grid in ways that nobody could explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.toy import ConvNet, ThresholdNet, inputs, make_engine, moving_clip, plain
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.engine import Engine, FrameInput, FrameResult, SegmentState, StateError
from vidseg_core.engine.bound import bytes_of
from vidseg_core.engine.regions import RegionEngine, RegionStates, restored
from vidseg_core.propagation import build_propagator
from vidseg_core.scheduling import build_scheduler

GRID = RegionsConfig(grid="2x3", overlap=8)
SIZE = (48, 64)
"""Three columns do not divide 64."""


def crops_of(frames: Sequence[FrameInput], number: int, regions: RegionsConfig = GRID) -> list[FrameInput]:
    """The same frames as one region sees them, cut here."""
    crop = regions.crops(SIZE)[number]
    return [
        FrameInput(
            frame_index=frame.frame_index,
            pts_s=frame.pts_s,
            is_corrupt=frame.is_corrupt,
            frame_HW3=frame.frame_HW3[crop.where].copy(),
            whole=SIZE,
        )
        for frame in frames
    ]


def rows_of(engine: Any, state: Any, frames: Sequence[FrameInput], stores: set[int] = frozenset()) -> list:  # type: ignore[assignment]
    """A segment from beginning to end; after frames of `stores` its state is stored and restored."""
    rows: list[FrameResult] = []
    for number, frame in enumerate(frames):
        rows += engine.step([state], [frame])[0]
        if number in stores:
            state = restored(state.to_bytes())
    return rows + engine.finish([state])[0]


def whole_rows(
    engine: Engine, frames: Sequence[FrameInput], regions: RegionsConfig = GRID, **how: Any
) -> list:
    """The segment through an engine with regions."""
    return rows_of(RegionEngine(engine, regions), RegionStates.new(0, "s", regions.count), frames, **how)


def rows_of_lanes(
    engine: Engine, clips: Sequence[Sequence[FrameInput]], regions: RegionsConfig = GRID
) -> list[list[FrameResult]]:
    """Segments of one length, stepped together."""
    lanes = RegionEngine(engine, regions)
    states = [RegionStates.new(0, "s", regions.count) for _ in clips]
    together: list[list[FrameResult]] = [[] for _ in clips]
    for frames in zip(*clips, strict=True):
        for rows, final in zip(together, lanes.step(states, frames), strict=True):
            rows += final
    for rows, final in zip(together, lanes.finish(states), strict=True):
        rows += final
    return together


def said(rows: Sequence[FrameResult]) -> list[tuple[Any, ...]]:
    """`plain`, and what a row says of regions."""
    more = [(row.region_keys, row.region_key_frame_index, row.region_scores, row.key_share) for row in rows]
    return list(zip(plain(rows), more, strict=True))


KINDS: dict[str, dict[str, Any]] = {
    "fixed": {"scheduler": "fixed", "interval": 4},
    "online": {"scheduler": "warp_error", "threshold": 8.0, "max_interval": 7},
    "one side": {"scheduler": "warp_error", "threshold": 8.0, "sides": "one"},
    "random": {"scheduler": "random", "interval": 3, "max_interval": 6},
    "scores": {"scheduler": "frame_difference", "threshold": 20.0, "level": "scores", "net": ConvNet},
    "ahead": {"scheduler": "tests.pipeline.lookahead:Brightest", "max_interval": 6},
}


def engine_of(kind: str, **more: Any) -> Engine:
    options = {**KINDS[kind], **more}
    return make_engine(**{**options, "net": options.get("net", ThresholdNet)()})


@given(
    height=st.integers(16, 90),
    width=st.integers(16, 90),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    overlap=st.integers(0, 20),
    align=st.sampled_from((1, 8, 32)),
)
def test_inner_parts_cover_each_pixel_once_and_crops_reach_as_far_as_asked(
    height: int, width: int, rows: int, columns: int, overlap: int, align: int
) -> None:
    regions = RegionsConfig(grid=f"{rows}x{columns}", overlap=overlap, align=align)
    if regions.problem((height, width)):
        with pytest.raises(ValueError, match="pixels a side"):
            regions.crops((height, width))
        return
    covered_HW, place_HW = np.zeros((height, width), int), np.arange(height * width).reshape(height, width)
    for crop in regions.crops((height, width)):
        covered_HW[crop.inner_where] += 1
        assert np.array_equal(place_HW[crop.where][crop.inner_in_crop], place_HW[crop.inner_where])
        top, bottom, left, right = crop.inner
        for first, start, stop, last, length in (
            (crop.top, top, bottom, crop.bottom, height),
            (crop.left, left, right, crop.right, width),
        ):
            assert first == max(0, start - overlap) // align * align
            assert last == min(length, -(-(stop + overlap) // align) * align)
    assert (covered_HW == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_region_is_a_segment_of_its_own(kind: str) -> None:
    frames = inputs(moving_clip(17), corrupt=[6])
    rows = whole_rows(engine_of(kind), frames)
    assert [row.frame_index for row in rows] == [frame.frame_index for frame in frames]
    crops, several = GRID.crops(SIZE), False
    for number, crop in enumerate(crops):
        own = rows_of(engine_of(kind), SegmentState.new(0, f"s/{number}"), crops_of(frames, number))
        for row, of_region in zip(rows, own, strict=True):
            assert np.array_equal(row.labels_HW[crop.inner_where], of_region.labels_HW[crop.inner_in_crop])
            assert row.region_keys[number] == of_region.is_key
            assert row.region_key_frame_index[number] == of_region.key_frame_index
            assert row.region_scores[number] == of_region.decision_score
        several |= [row.is_key for row in rows] != [row.is_key for row in own]
    assert several or kind in ("fixed", "scores")  # else regions had no keys of their own here


def test_a_frame_says_what_its_regions_say_together() -> None:
    frames = inputs(moving_clip(17))
    rows = whole_rows(engine_of("online"), frames)
    parts = [
        rows_of(engine_of("online"), SegmentState.new(0, f"s/{n}"), crops_of(frames, n))
        for n in range(GRID.count)
    ]
    pixels = [crop.pixels for crop in GRID.crops(SIZE)]
    mixed = 0
    for row, of_regions in zip(rows, zip(*parts, strict=True), strict=True):
        keys = [part.is_key for part in of_regions]
        mixed += any(keys) and not all(keys)
        oldest = min(part.key_frame_index for part in of_regions)
        assert row.is_key == any(keys)
        assert row.key_frame_index == oldest
        assert row.lkd == max(part.lkd for part in of_regions if part.key_frame_index == oldest)
        assert row.decision_score == max(part.decision_score for part in of_regions)
        assert row.kar == pytest.approx(np.average([part.kar for part in of_regions], weights=pixels))
        assert row.key_share == pytest.approx(np.dot(keys, pixels) / (SIZE[0] * SIZE[1]))
    assert mixed > 2
    assert rows[0].key_share > 1.0  # overlap is counted


def test_aligned_crops_are_put_together_also_after_a_restore() -> None:
    """The size of a frame does not follow from those of such crops: it is in the state."""
    frames = inputs(moving_clip(12))
    for align in (16, 24):
        regions = RegionsConfig(grid="2x3", overlap=3, align=align)
        rows = whole_rows(engine_of("online"), frames, regions)
        assert said(rows) == said(whole_rows(engine_of("online"), frames, regions, stores={0, 4, 11}))
        crops = regions.crops(SIZE)
        assert {row.labels_HW.shape for row in rows} == {SIZE}
        assert rows[0].key_share == sum(crop.pixels for crop in crops) / (SIZE[0] * SIZE[1])
        for number, crop in enumerate(crops):
            own = rows_of(
                engine_of("online"), SegmentState.new(0, f"s/{number}"), crops_of(frames, number, regions)
            )
            for row, of_region in zip(rows, own, strict=True):
                assert np.array_equal(
                    row.labels_HW[crop.inner_where], of_region.labels_HW[crop.inner_in_crop]
                )


@pytest.mark.parametrize("kind", KINDS)
def test_one_region_is_the_frame(kind: str) -> None:
    """With random keys, that is the segment of the region's name."""
    frames = inputs(moving_clip(15))
    one = RegionsConfig(grid="1x1")
    assert plain(whole_rows(engine_of(kind), frames, one)) == plain(
        rows_of(engine_of(kind), SegmentState.new(0, "s/0"), frames)
    )


@settings(max_examples=10)
@given(kind=st.sampled_from(sorted(KINDS)), stores=st.sets(st.integers(0, 9), max_size=4))
def test_a_stored_state_goes_on_with_the_same_rows(kind: str, stores: set[int]) -> None:
    frames = inputs(moving_clip(10), corrupt=[5])
    if kind not in _undisturbed:
        _undisturbed[kind] = said(whole_rows(engine_of(kind), frames))
    assert said(whole_rows(engine_of(kind), frames, stores=stores)) == _undisturbed[kind]


_undisturbed: dict[str, Any] = {}


@pytest.mark.parametrize("kind", ["online", "ahead", "scores"])
@pytest.mark.parametrize("key_batch", [1, 4])
def test_lanes_change_nothing(kind: str, key_batch: int) -> None:
    clips = [inputs(moving_clip(11, seed=seed)) for seed in (0, 4)]
    together = rows_of_lanes(engine_of(kind, key_batch=key_batch), clips)
    for rows, frames in zip(together, clips, strict=True):
        assert said(rows) == said(whole_rows(engine_of(kind, key_batch=key_batch), frames))


def test_a_step_that_fails_has_taken_no_row_and_can_be_made_again() -> None:
    frames = inputs(moving_clip(9))
    engine = engine_of("ahead")
    here, state, rows = RegionEngine(engine, GRID), RegionStates.new(0, "s", GRID.count), []
    run, failures = engine.net.run, iter([False, True] * 1000)

    def sometimes(*given: Any) -> Any:
        if given[0] and next(failures):
            raise RuntimeError("no memory")
        return run(*given)

    engine.net.run = sometimes  # type: ignore[method-assign]
    for frame in frames:
        for _ in range(GRID.count):  # a frame may bring several regions' keys
            try:
                rows += here.step([state], [frame])[0]
                break
            except RuntimeError:
                continue
    engine.net.run = run  # type: ignore[method-assign]
    assert said(rows + here.finish([state])[0]) == said(whole_rows(engine_of("ahead"), frames))


@pytest.mark.parametrize("kind", ["online", "ahead"])
def test_no_more_is_kept_than_is_said_beforehand(kind: str) -> None:
    engine, state = RegionEngine(engine_of(kind), GRID), RegionStates.new(0, "s", GRID.count)
    bound = engine.bound(SIZE)
    for frame in inputs(moving_clip(20)):
        engine.step([state], [frame])
        assert max(map(len, state.rows)) <= bound.frames
        waiting = sum(bytes_of(row.labels_HW) for rows in state.rows for row in rows)
        kept = sum(_kept(one) for one in state.states)
        assert waiting + kept <= bound.bytes


def _kept(state: SegmentState) -> int:
    key = state.key
    frames = [bytes_of((frame.view, frame.rgb_HW3)) for frame in state.pending]
    frames += [bytes_of((frame.view, frame.frame_HW3)) for frame in state.waiting]
    return sum(frames) + (0 if key is None else bytes_of((key.view, key.carried, key.rgb_HW3)))


def test_flow_pictures_have_the_scale_of_the_frames() -> None:
    engine, state = RegionEngine(engine_of("fixed"), GRID), RegionStates.new(0, "s", GRID.count)
    engine.step([state], inputs(moving_clip(1)))
    for one, crop in zip(state.states, GRID.crops(SIZE), strict=True):
        assert one.key is not None
        assert one.key.view.shape == tuple(round(side * 48 / 64) for side in crop.shape)  # flow size 48


def test_luma_gives_regions_what_their_part_of_the_frame_has() -> None:
    """Frames that come as YUV: their flow pictures are cut from the luma, and no colours are made of them."""

    class Yuv:
        shape: tuple[int, int] = SIZE

        def rgb(self) -> np.ndarray:
            raise AssertionError("colours of a frame that is no key")

        def luma(self) -> tuple[np.ndarray, bool]:
            return np.kron(gray_HW, np.ones((2, 2), np.uint8)), True

    gray_HW = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    engine = RegionEngine(
        Engine(ThresholdNet(), build_scheduler("every"), build_propagator("copy"), flow_size=64), GRID
    )
    frame = FrameInput(frame_index=0, pts_s=0.0, is_corrupt=False, picture=Yuv())
    for crop, region in zip(GRID.crops(SIZE), engine._cut(frame), strict=True):
        luma = region.luma()
        assert luma is not None and luma[1]
        assert np.array_equal(luma[0], gray_HW[crop.where])


def test_bytes_of_another_kind_are_refused() -> None:
    state = RegionStates.new(0, "s", 4)
    data = state.to_bytes()
    assert isinstance(restored(data), RegionStates)
    assert isinstance(restored(SegmentState.new(0, "s").to_bytes()), SegmentState)
    with pytest.raises(StateError, match="checksum"):
        restored(data[:-9] + b"\0" + data[-8:])
    with pytest.raises(StateError):
        SegmentState.from_bytes(data)
    with pytest.raises(StateError):
        restored(b"")


def test_every_field_of_a_row_is_stored() -> None:
    frames = inputs(moving_clip(6))
    engine, state = RegionEngine(engine_of("random"), GRID), RegionStates.new(0, "s", GRID.count)
    for frame in frames:
        engine.step([state], [frame])
    assert any(state.rows), "no region waits for another one here"
    again = restored(state.to_bytes())
    assert isinstance(again, RegionStates)
    for rows, others in zip(state.rows, again.rows, strict=True):
        for row, other in zip(rows, others, strict=True):
            for field in fields(FrameResult):
                np.testing.assert_equal(getattr(other, field.name), getattr(row, field.name))
