"""Promise: `segment` gives every frame of every video exactly one row, and a key frame's mask is N's own.

Why: everything else (schedulers, training, exports) reads this table; a lost, doubled or shifted frame would
poison it silently.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pytest
import torch

from benchmarks.run_digest import run_digest
from tests.pipeline.clips import make_corpus
from tests.pipeline.conftest import OPTIONS_OF, RunJob, small_config
from vidseg_core.config.segment import MaskConfig, PropagationConfig, SchedulerConfig
from vidseg_core.engine.assemble import build_net
from vidseg_core.media import probe
from vidseg_core.models.registry import build_segmenter
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.store.run import open_run

LENGTHS = (50, 37, 83)


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One complete run of the defaults."""
    output = tmp_path_factory.mktemp("run") / "out"
    assert run_segment(small_config(corpus, output, **OPTIONS_OF["local"])) == 0
    return output


def test_every_frame_has_one_row(finished: Path) -> None:
    rows = open_run(finished).frames().to_table(columns=["video_id", "frame_index"]).to_pylist()
    by_video: dict[str, list[int]] = {}
    for row in rows:
        by_video.setdefault(row["video_id"], []).append(row["frame_index"])
    assert sorted(map(len, by_video.values())) == sorted(LENGTHS)
    assert all(sorted(frames) == list(range(len(frames))) for frames in by_video.values())


def test_masks_of_key_frames_equal_n_run_directly(finished: Path, corpus: Path) -> None:
    run = open_run(finished)
    net = build_segmenter("plain", device="cpu")
    checked = 0
    for video in run.videos().to_pylist():
        frames = _decode(video["uri"])
        keys = run.frames().to_table(columns=["video_id", "frame_index", "is_key"]).to_pylist()
        for row in keys:
            if row["video_id"] == video["video_id"] and row["is_key"]:
                picture = (
                    torch.from_numpy(frames[row["frame_index"]].copy()).permute(2, 0, 1)[None].float() / 255
                )
                direct = net.head(net.features(picture)).argmax(1)[0].numpy().astype(np.uint8)
                np.testing.assert_array_equal(run.mask(row["video_id"], row["frame_index"]), direct)
                checked += 1
    assert checked >= 20


def test_videos_run_json_and_success_are_written(finished: Path) -> None:
    videos = open_run(finished).videos().to_pylist()
    assert [v["status"] for v in videos] == ["ok"] * 3
    assert sum(v["decoded_frames"] for v in videos) == sum(LENGTHS)
    info = json.loads((finished / "run.json").read_text())
    assert info["totals"]["frames"] == sum(LENGTHS) and info["versions"]["ffmpeg.libavcodec"]
    assert len(info["segmenter"]["weights_sha256"]) == 64
    assert (finished / "_SUCCESS").exists()
    assert not list((finished / "_state").rglob("*.state")), "saved states are dropped when a video is closed"


def test_duckdb_reads_the_output_without_this_package(finished: Path) -> None:
    query = f"select count(*), count(distinct (video_id, frame_index)) from '{finished}/frames/**/*.parquet'"
    assert duckdb.connect().execute(query).fetchall() == [(sum(LENGTHS), sum(LENGTHS))]


def test_a_second_run_has_nothing_to_do(finished: Path, corpus: Path, run_locally: RunJob) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    code, text = run_locally(corpus, finished)
    assert code == 0 and "complete already" in text
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}


@pytest.mark.ray
def test_workers_on_ray_change_no_row(finished: Path, corpus: Path, tmp_path: Path, run_job: RunJob) -> None:
    code, text = run_job(corpus, tmp_path / "out", shard_frames=5, decoders=4)
    assert code == 0, text
    assert run_digest(tmp_path / "out") == run_digest(finished)


@pytest.mark.parametrize("options", [{"lanes": 3}, {"shard_frames": 5}])
def test_lanes_and_shards_change_no_row(
    options: dict, finished: Path, corpus: Path, tmp_path: Path, run_locally: RunJob
) -> None:
    code, text = run_locally(corpus, tmp_path / "out", **options)
    assert code == 0, text
    assert run_digest(tmp_path / "out") == run_digest(finished)


def test_another_fingerprint_is_refused_and_says_what_differs(
    finished: Path, corpus: Path, run_locally: RunJob
) -> None:
    before = run_digest(finished)
    code, text = run_locally(corpus, finished, scheduler=SchedulerConfig(name="fixed", interval=9))
    assert code == 2 and "scheduler.interval: 7 there, 9 now" in text
    assert run_digest(finished) == before


def test_other_inputs_are_refused(finished: Path, tmp_path: Path, run_locally: RunJob) -> None:
    other = make_corpus(tmp_path / "other", (20,))
    code, text = run_locally(other, finished)
    assert code == 2 and "begun with other videos" in text


def test_masks_at_source_size(corpus: Path, tmp_path: Path, run_locally: RunJob) -> None:
    code, text = run_locally(corpus, tmp_path / "out", working_size="64", masks=MaskConfig(size="source"))
    assert code == 0, text
    run = open_run(tmp_path / "out")
    first = run.videos().to_pylist()[0]
    assert run.mask(first["video_id"], 0).shape == (first["height"], first["width"]) == (96, 128)


@pytest.mark.parametrize("level", ["scores", "features"])
def test_other_levels_run_through_the_job(
    level: Literal["scores", "features"], corpus: Path, tmp_path: Path, run_locally: RunJob
) -> None:
    code, text = run_locally(
        corpus, tmp_path / "out", propagation=PropagationConfig(level=level, sides="one", flow_size=96)
    )
    assert code == 0, text
    assert open_run(tmp_path / "out").frames().count_rows() == sum(LENGTHS)


def test_build_net_is_the_same_net(corpus: Path, tmp_path: Path) -> None:
    assert build_net(small_config(corpus, tmp_path), "cpu").digest == build_segmenter("plain").digest


def _decode(uri: str) -> np.ndarray:
    from vidseg_core.media import MediaLimits, decode_unit, working_size
    from vidseg_core.plan.segments import plan_segments

    index = probe(uri, MediaLimits())
    height, width = working_size(index.width, index.height, 512)
    (segment,) = plan_segments(index, segment_frames=0, shard_frames=64)
    units = [unit.decode_unit(uri, index, height=height, width=width) for unit in segment.units]
    return np.concatenate(
        [shard.frames_THW3 for unit in units for shard in decode_unit(unit, shard_frames=64)]
    )
