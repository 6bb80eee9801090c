"""Promise: a range and a rate name the same frames of a video however it is cut, every length counts
processed frames, and what is decoded of them is what a decode of the whole video gives, frame by frame.

Why: a run on every third frame has to be the run on a file that was cut so, with a third of the work.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media import clips
from tests.media.decoding import by_units
from tests.plan.test_segments import index_of, indexes
from vidseg_core.config.excerpt import WHOLE, Excerpt
from vidseg_core.media import MediaError, VideoIndex, decode_unit, probe
from vidseg_core.media.model import NO_TIME
from vidseg_core.plan import plan_segments
from vidseg_core.plan.excerpt import clock_of, frames_of


def at_times(
    ticks: np.ndarray | list[int], den: int, *, regular: bool = True, duration: int = 1
) -> VideoIndex:
    """An index of frames at these times, in units of 1/den s."""
    pts = np.asarray(ticks, dtype=np.int64)
    whole = index_of(len(pts), [0])
    return replace(whole, frame_pts=pts, time_base_den=den, regular=regular, frame_duration=duration)


def taken(index: VideoIndex, **excerpt: float | None) -> list[int]:
    found = frames_of(Excerpt(**excerpt), index, "a.mp4")
    return list(range(index.frames)) if found is None else found.tolist()


@pytest.mark.parametrize(
    ("fps", "first"),
    [
        (30, [0, 1, 2, 3]),
        (100, [0, 1, 2, 3]),
        (20, [0, 1, 3, 4]),
        (15, [0, 2, 4, 6]),
        (10, [0, 3, 6, 9]),
        (1, [0, 30, 60]),
        (0.1, [0]),
    ],
)
def test_a_rate_takes_the_frames_nearest_to_even_times(fps: float, first: list[int]) -> None:
    """Also where the container rounds times to milliseconds, and begins anywhere."""
    exact, rounded = np.arange(62) * 3000 + 126_000, np.round(np.arange(62) / 0.03) + 7
    assert taken(at_times(exact, 90_000), fps=fps)[: len(first)] == first
    assert len(first) > 3 or taken(at_times(exact, 90_000), fps=fps) == first
    assert taken(at_times(rounded, 1000), fps=fps)[: len(first)] == first


@pytest.mark.parametrize(
    ("rate", "fps", "period", "places"), [(25, 10, 5, {0, 2}), (30, 20, 3, {0, 1}), (30, 12, 5, {0, 2})]
)
@pytest.mark.parametrize("start", [0, 21])
def test_of_two_that_are_equally_near_the_earlier_is_taken(
    rate: int, fps: float, period: int, places: set[int], start: int
) -> None:
    """Rounding decided some of these ties, so that steps were uneven here and there."""
    index = at_times(np.arange(50_000) * (90_000 // rate), 90_000)
    found = np.array(taken(index, fps=fps, start_s=start / rate)) - start
    assert set(found % period) == places


def test_a_broken_rate_drifts_through_the_frames() -> None:
    index = at_times(np.arange(3000) * 1001, 30_000)
    steps = np.diff(taken(index, fps=10))
    assert set(steps) == {2, 3} and np.count_nonzero(steps == 2) == 3
    assert taken(index, fps=30) == taken(index, fps=29.97) == list(range(3000))


def test_where_the_rate_varies_no_frame_comes_twice() -> None:
    assert taken(at_times([0, 10, 5000, 5010, 5020, 5600], 1000), fps=2) == [0, 1, 2, 5]


def test_a_range_begins_with_its_first_frame_and_leaves_out_its_end() -> None:
    index = at_times(np.arange(100) * 40 + 5000, 1000)
    assert taken(index, start_s=1, end_s=2) == list(range(25, 50))
    assert taken(index, start_s=1.01, end_s=2, fps=5) == [26, 30, 35, 40, 45]
    assert taken(index, end_s=900) == list(range(100))


def test_frames_without_a_time_follow_each_other_at_the_rate_of_the_container() -> None:
    nowhere = at_times(np.full(50, NO_TIME), 1000, regular=False, duration=40)
    assert taken(nowhere, fps=5) == list(range(0, 50, 5))
    joined = np.concatenate([np.arange(25) * 40 + 90_000, np.arange(25) * 40])  # the clock starts anew
    np.testing.assert_allclose(
        clock_of(at_times(joined, 1000, regular=False, duration=40)), np.arange(50) / 25
    )


def test_frames_that_come_late_take_no_time_of_their_own() -> None:
    """A real file of 15 s (its frames come out of order) was 37 s long for a range and a rate."""
    late = np.arange(0, 400, 4)[:, None] + [0, 3, 2, 4]  # ... each group of four out of order
    index = at_times(late.ravel() * 40, 1000, regular=False, duration=40)
    clock = clock_of(index)
    assert np.all(np.diff(clock) >= 0) and clock[-1] == pytest.approx(400 * 0.04)
    assert np.abs(clock - index.frame_pts / 1000).max() < 0.1
    assert len(taken(index, fps=5)) == pytest.approx(400 / 5, abs=1)
    doubled = at_times(np.arange(50).repeat(2) * 80, 1000, regular=False, duration=40)  # fields as frames
    assert clock_of(doubled)[-1] == pytest.approx(99 * 0.04)
    still = at_times(np.full(50, 7), 1000, regular=False, duration=40)
    np.testing.assert_allclose(clock_of(still), np.arange(50) / 25)


def test_a_range_without_a_frame_says_where_the_video_ends() -> None:
    with pytest.raises(
        MediaError, match=r"a.mp4: there is no frame \(every frame, from 9 s\); .* at 1.960 s"
    ) as caught:
        taken(at_times(np.arange(50) * 40, 1000), start_s=9)
    assert caught.value.reason == "no_frames"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"fps": 0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"start_s": -1}, "start_s"),
        ({"end_s": float("inf")}, "end_s"),
        ({"end_s": 0}, "end_s"),
        ({"start_s": 2, "end_s": 2}, "end_s"),
    ],
)
def test_values_that_cannot_be(values: dict[str, float], name: str) -> None:
    found = Excerpt(**values).problem()
    assert found is not None and found[0] == name


def test_what_a_row_leaves_open_the_options_say() -> None:
    assert Excerpt(fps=5).over(Excerpt(fps=2, end_s=7)) == Excerpt(fps=5, end_s=7)
    assert Excerpt(fps=2.5, start_s=3, end_s=7).words() == "2.5 frames a second, from 3 s to 7 s"
    assert Excerpt(end_s=7).words() == "every frame, to 7 s"
    assert Excerpt(start_s=0).over(Excerpt(start_s=3)) == Excerpt(start_s=0).over(WHOLE) == WHOLE
    assert str(Excerpt(start_s=3, fps=5)) == "fps=5.0 start_s=3.0"


@given(indexes(), st.data(), st.integers(0, 120), st.integers(1, 70), st.integers(1, 90))
def test_the_frames_that_are_taken_are_covered_once(
    index: VideoIndex, data: st.DataObject, segment: int, shard: int, unit: int
) -> None:
    frames = np.array(sorted(data.draw(st.sets(st.integers(0, index.frames - 1), min_size=1))))
    plan = plan_segments(index, segment_frames=segment, shard_frames=shard, unit_frames=unit, frames=frames)
    units = [unit for piece in plan for unit in piece.units]
    places = [u.first_frame + (np.arange(len(u.frame_pts)) if u.kept is None else u.kept) for u in units]
    assert np.array_equal(np.concatenate(places), frames)
    assert [len(found) for found in places] == [u.frames for u in units]
    assert all(u.frames >= unit for u in units[:-1]) and min(u.frames for u in units) > 0
    assert all(piece.frames >= segment > 0 for piece in plan[:-1])
    before_first = index.key_indices[index.key_indices <= frames[0]]
    assert units[0].first_frame == before_first[-1]


def test_all_frames_are_the_plan_of_today() -> None:
    index = index_of(300, [0, 50, 120, 290])
    for one, other in zip(
        plan_segments(index, segment_frames=100, shard_frames=7, unit_frames=40),
        plan_segments(index, segment_frames=100, shard_frames=7, unit_frames=40, frames=np.arange(300)),
        strict=True,
    ):
        for unit, same in zip(one.units, other.units, strict=True):
            assert (unit.first_frame, unit.frames, unit.shards, unit.kept) == (
                same.first_frame,
                same.frames,
                same.shards,
                None,
            )


NAMES = ("b_frames.mp4", "open_gop.mkv", "no_reordering_known.mp4", "pictures.mov")
PICTURES: dict[str, Any] = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}


class Clips(dict[str, tuple[Path, VideoIndex, list[np.ndarray]]]):
    def __repr__(self) -> str:
        return f"Clips({', '.join(self)})"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """Clips with several units, with one, one whose packets do not give its frames, and one of pictures that
    stand alone."""
    folder, found = tmp_path_factory.mktemp("clips"), Clips()
    for name in NAMES:
        path = clips.make(folder, name) if name in clips.INTACT else clips.write(folder / name, **PICTURES)
        index = probe(str(path))
        found[name] = path, index, by_units(path, index=index).pixels
    return found


@settings(max_examples=25)
@given(
    name=st.sampled_from(NAMES),
    frames=st.sets(st.integers(0, 59), min_size=1),
    shard=st.integers(1, 20),
    unit=st.integers(1, 30),
    skip=st.integers(0, 3),
)
def test_what_is_decoded_of_them_is_what_the_whole_video_gives(
    whole: Clips, name: str, frames: set[int], shard: int, unit: int, skip: int
) -> None:
    path, index, pixels = whole[name]
    wanted = np.array(sorted({number % index.frames for number in frames}))
    (plan,) = plan_segments(index, segment_frames=0, shard_frames=shard, unit_frames=unit, frames=wanted)
    numbers: list[int] = []
    for planned in plan.units:
        request = planned.decode_unit(str(path), index, height=64, width=96)
        shards = list(decode_unit(request, shard_frames=shard))
        assert len(shards) == planned.shards and not any(found.error for found in shards)
        numbers += [number for found in shards for number in found.frame_index.tolist()]
        for found in shards:
            for number, pixels_HW3 in zip(found.frame_index, found.frames_THW3, strict=True):
                np.testing.assert_array_equal(pixels_HW3, pixels[number])
        later = list(decode_unit(request, shard_frames=shard, skip_shards=skip))
        assert [s.frame_index.tolist() for s in later] == [s.frame_index.tolist() for s in shards[skip:]]
    assert numbers == wanted.tolist()


@pytest.mark.parametrize(("name", "decoded"), [("pictures.mov", 4), ("b_frames.mp4", 31)])
def test_pictures_that_stand_alone_are_decoded_only_if_they_are_wanted(
    name: str, decoded: int, whole: Clips
) -> None:
    path, index, _ = whole[name]
    frames, beats = np.array([0, 10, 20, 30]), []
    ((unit,),) = (s.units for s in plan_segments(index, segment_frames=0, shard_frames=9, frames=frames))
    request = unit.decode_unit(str(path), index, height=64, width=96)
    (shard,) = decode_unit(request, shard_frames=9, beat=lambda: beats.append(1))
    assert shard.frame_index.tolist() == frames.tolist() and len(beats) == decoded
