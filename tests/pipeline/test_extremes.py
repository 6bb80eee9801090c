"""Promise: many files that are hardly there, and one video of four hours, get what any video gets.

Both break jobs that are sized by the usual clip: the first by what each video costs beside its frames, the
second by what grows with a video's length (plans, states, time stamps). 10,000 files and 72,000 frames, with
peak memory and a kill: `python -m benchmarks.extremes`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.clips import looped, moving_disc, write_video
from vidseg_core.config.segment import PropagationConfig
from vidseg_core.store.run import open_run

pytestmark = pytest.mark.slow
CHEAP = {"segmenter": "constant", "propagation": PropagationConfig(name="copy", sides="one")}


@pytest.mark.ray
def test_many_tiny_files(tmp_path: Path, run_job: Callable) -> None:
    files, frames = 150, 3
    clip = write_video(tmp_path / "tiny.mp4", moving_disc(frames, 48, 64))
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(files):
        os.link(clip, folder / f"{number:04d}.mp4")
    code, text = run_job(folder, tmp_path / "out", workers=1, **CHEAP)
    assert code == 0, text
    run = open_run(tmp_path / "out")
    rows = run.frames().to_table(columns=["video_id", "frame_index"])
    assert rows.num_rows == files * frames
    assert rows.group_by(["video_id", "frame_index"]).aggregate([]).num_rows == rows.num_rows
    assert run.videos().column("status").to_pylist() == ["ok"] * files


def test_a_video_of_four_hours(tmp_path: Path, run_locally: Callable) -> None:
    hours, minutes_of_loop = 4, 5
    clip = write_video(tmp_path / "loop.mp4", moving_disc(60 * minutes_of_loop, 48, 64), fps=1, gop=20)
    (tmp_path / "in").mkdir()
    looped(clip, tmp_path / "in" / "long.mp4", hours * 60 // minutes_of_loop)
    sizes = {"segment_frames": 2000, "shard_frames": 128}
    code, text = run_locally(tmp_path / "in", tmp_path / "out", **CHEAP, **sizes)
    assert code == 0, text
    run = open_run(tmp_path / "out")
    (video,) = run.videos().to_pylist()
    frames = hours * 3600
    assert video["decoded_frames"] == frames and video["duration_s"] == pytest.approx(frames, abs=2)
    rows = run.frames().to_table(columns=["frame_index", "pts_s", "lkd"]).sort_by("frame_index")
    np.testing.assert_array_equal(rows["frame_index"].to_numpy(), np.arange(frames))
    np.testing.assert_allclose(np.diff(rows["pts_s"].to_numpy()), 1.0, atol=1e-6)
