"""Promise: the tables say of each frame when it is shown, or that nobody knows, and of each video which of
the file's streams it is.

What motivated it: recordings that were joined were half lost, frames got the times of others, times were made
up, and a cover was segmented in place of the film; `ok`, all of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.media import clips
from tests.media.odd_files import Recipe, make
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import run_inline
from vidseg_core.config.segment import MediaConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.pipeline.source_frames import source_frames
from vidseg_core.store import open_run


def rows_of(source: Path, output: Path, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The video's row and its frames' rows."""
    run_inline(small_config(source, output, **options), 1)
    run = open_run(output)
    (video,) = run.videos().to_pylist()
    return video, list(run.rows(video["video_id"])) if video["decoded_frames"] else []


def test_recordings_that_were_joined_keep_all_frames_and_their_own_times(tmp_path: Path) -> None:
    path = make(tmp_path, Recipe(codec="h264", container="ts", start=1000, joined_at=0))
    video, rows = rows_of(path, tmp_path / "run")
    assert (video["status"], video["decoded_frames"]) == ("ok", 60)
    assert [row["frame_index"] for row in rows] == list(range(60))
    assert rows[29]["pts_s"] > 40 > rows[30]["pts_s"]
    assert {row["pts_reason"] for row in rows} == {None}


def test_a_frame_without_a_time_says_so(tmp_path: Path) -> None:
    path = clips.make(tmp_path, "elementary.h264")
    video, rows = rows_of(path, tmp_path / "run")
    assert (video["status"], video["decoded_frames"], video["stream"]) == ("ok", 60, 0)
    assert {(row["pts_s"], row["pts_reason"]) for row in rows} == {(None, "not_given")}


@pytest.mark.parametrize(("asked", "stream", "frames"), [(None, 1, 30), (0, 0, 1)])
def test_the_film_is_segmented_not_its_cover(
    asked: int | None, stream: int, frames: int, tmp_path: Path
) -> None:
    path = make(tmp_path, Recipe(codec="h264", container="mkv", still="before"))
    video, rows = rows_of(path, tmp_path / "run", media=MediaConfig(stream=asked))
    assert (video["status"], video["stream"], len(rows)) == ("ok", stream, frames)
    assert video["other_streams"] == ("0: video mjpeg 48x48" if stream else "1: video h264 96x64")


def test_a_stream_that_is_not_there_is_a_reason(tmp_path: Path) -> None:
    path = make(tmp_path, Recipe(codec="h264", container="mkv", sound=True))
    video, _ = rows_of(path, tmp_path / "run", media=MediaConfig(stream=1))
    assert video["status"] == "quarantined" and video["stream"] is None
    assert video["reason"].startswith("no_video_stream: ") and "1: audio aac" in video["reason"]


def test_what_a_net_learns_from_a_run_are_the_frames_that_were_segmented(tmp_path: Path) -> None:
    path = make(tmp_path, Recipe(codec="h264", container="mkv", still="before"))
    rows_of(path, tmp_path / "run", media=MediaConfig(stream=0))
    named = {"schema_version": 1, "segmenter": {"class_names": [f"class {i}" for i in range(8)]}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(named))
    dataset = open_dataset(f"tables:{tmp_path / 'run'}")
    (item,) = dataset.items("train")
    ((_, expected_HW3),) = source_frames(str(path), 48, stream=0)
    np.testing.assert_array_equal(dataset.read(item).frame_HW3, expected_HW3)
