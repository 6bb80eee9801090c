"""Promise: the list of a run's videos is the sequence of its videos, whatever it is made of, cut into or
filtered by; equal texts are found exactly; and a video costs it little more than its name."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg_core.plan import expand_inputs, inputs, video_list
from vidseg_core.plan.video_list import VideoInput, VideoList, alike, text_column

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=40)


def videos(count: int) -> list[VideoInput]:
    return [VideoInput(video_id=f"v{n:04d}", uri=f"/c/{n}.mp4", size=n, stamp=str(n)) for n in range(count)]


@given(st.integers(0, 50), st.slices(50), st.sets(st.integers(0, 60)))
def test_it_is_the_sequence_of_its_videos(count: int, cut: slice, gone: set[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_list, "_CHUNK", 7)
        plain, made = videos(count), VideoList.of(videos(count))
        assert made == plain and len(made) == count
        assert [made[place] for place in range(-count, count)] == plain + plain
        assert made[cut] == plain[cut]
        ids = text_column(f"v{n:04d}" for n in gone)
        assert made.without(ids) == [video for n, video in enumerate(plain) if n not in gone]


def test_a_place_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        VideoList.of(videos(3))[3]


@given(TEXTS)
def test_equal_texts_are_found(texts: list[str]) -> None:
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    assert list(alike(text_column(texts))) == [group for group in places.values() if len(group) > 1]


@given(TEXTS)
def test_texts_whose_hashes_meet_are_told_apart(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_list, "hash", len, raising=False)
        found = list(alike(text_column(texts)))
    assert all(len({texts[place] for place in group}) == 1 for group in found)
    assert sum(map(len, found)) == sum(texts.count(text) > 1 for text in texts)


def test_a_limit_counts_videos_that_differ(tmp_path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"")
    twice = [str(tmp_path / "a.mp4"), str(tmp_path / "a.mp4"), str(tmp_path)]
    assert [video.uri[-5:] for video in expand_inputs(twice, limit=2)] == ["a.mp4", "b.mp4"]
    assert len(expand_inputs(twice, limit=9)) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "_AT_LEAST", 1)
        assert len(expand_inputs(twice, limit=2)) == 2


def test_a_video_costs_little_more_than_its_name() -> None:
    made = VideoList.of(videos(20_000))
    names = sum(len(video.video_id) + len(video.uri) + len(video.stamp) for video in made)
    assert pa.table(made.table).nbytes < names + 48 * len(made)
