"""Promise: ``vidseg compact`` and ``vidseg export`` work on a run; every verb names what is wrong with one.

The run is written by hand through the store, so that these tests need neither Ray nor a net.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.run_digest import run_digest
from tests.store.builders import older_bytes, video_row
from vidseg_core.cli import main as cli
from vidseg_core.engine import FrameResult
from vidseg_core.kit.manifest import fingerprint
from vidseg_core.store import (
    RUN_KEY,
    SUCCESS_KEY,
    commit_part,
    encode_part,
    encode_videos,
    open_run,
    open_store,
    part_key,
)
from vidseg_core.store.keys import MANIFEST_KEY

FRAMES, HEIGHT, WIDTH = 20, 48, 64
VIDEO = "clip-0123456789"


def write_video(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def mask(number: int) -> np.ndarray:
    labels_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels_HW[10:20, number : number + 8] = 1
    return labels_HW


def row(number: int) -> FrameResult:
    key = number // 10 * 10
    return FrameResult(
        frame_index=number,
        pts_s=number / 10,
        is_key=number == key,
        key_frame_index=key,
        decision_score=0.0,
        kar=0.1,
        lkd=number - key,
        is_corrupt=False,
        labels_HW=mask(number),
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A complete run of one video in four parts."""
    write_video(tmp_path / "clip.mp4")
    store = open_store(str(tmp_path / "run"))
    for shard in range(4):
        rows = [row(number) for number in range(5 * shard, 5 * shard + 5)]
        commit_part(store, part_key(VIDEO, 0, shard), encode_part(VIDEO, rows, n_classes=2))
    video = video_row(
        VIDEO,
        FRAMES,
        uri=str(tmp_path / "clip.mp4"),
        codec="mpeg4",
        width=WIDTH,
        height=HEIGHT,
        keys=2,
        aki=10.0,
        duration_s=2.0,
        cpu_s=0.1,
    )
    store.put(f"videos/{VIDEO}.parquet", encode_videos([video]))
    store.put(
        RUN_KEY, json.dumps({"schema_version": 1, "segmenter": {"class_names": ["road", "car"]}}).encode()
    )
    store.put(SUCCESS_KEY, b"")
    return tmp_path / "run"


def with_manifest(run: Path) -> None:
    """What `status` needs."""
    open_store(run).put(MANIFEST_KEY, json.dumps(fingerprint({}, "x")).encode())


def test_compact_merges_parts_and_keeps_the_rows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = run_digest(str(run))
    assert cli.main(["compact", "--run", str(run)]) == 0
    assert "4 parts merged into 1 file\n" in capsys.readouterr().err
    assert run_digest(str(run)) == before and len(list(run.glob("frames/*/*.parquet"))) == 1


def test_compact_says_when_there_is_nothing_to_merge(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["compact", "--run", str(run)])
    assert cli.main(["compact", "--run", str(run)]) == 0
    assert "nothing to merge" in capsys.readouterr().err


def test_compact_leaves_an_unfinished_run_alone_unless_forced(run: Path) -> None:
    (run / SUCCESS_KEY).unlink()
    assert cli.main(["compact", "--run", str(run)]) == 2
    assert len(list(run.glob("frames/*/*.parquet"))) == 4
    assert cli.main(["compact", "--run", str(run), "--force"]) == 0


def test_export_overlay_shows_every_frame_of_the_source(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "overlay"
    argv = ["export", "--run", str(run), "--output", str(out), "--format", "overlay", "--layout", "side"]
    for options, taller in ((["--no-legend"], False), (["--overwrite"], True)):
        assert cli.main([*argv, *options]) == 0
        with av.open(str(out / f"{VIDEO}.mp4")) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == FRAMES and frames[0].width == 2 * WIDTH
        assert (frames[0].height > HEIGHT) == taller


def test_an_overlay_whose_source_is_gone_is_reported_with_3(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clip.mp4").unlink()
    argv = ["export", "--run", str(run), "--output", str(tmp_path / "o"), "--format", "overlay"]
    assert cli.main(argv) == 3
    assert "clip.mp4" in capsys.readouterr().err


def test_unknown_videos_and_runs_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert cli.main(["export", "--run", str(run), "--output", out, "--video", "clap-0123456789"]) == 2
    assert f"did you mean {VIDEO!r}" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["export", "--run", str(tmp_path / "empty"), "--output", out]) == 2
    assert "is not a vidseg run" in capsys.readouterr().err


def test_an_output_that_cannot_be_made_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["export", "--run", str(run), "--output", str(tmp_path / "file" / "x")]) == 2
    assert "--output" in capsys.readouterr().err


def test_the_rows_are_readable_after_compact(run: Path) -> None:
    cli.main(["compact", "--run", str(run)])
    assert np.array_equal(open_run(str(run)).mask(VIDEO, 13), mask(13))


@pytest.mark.parametrize("gone", ["part-00000-000001.parquet", ""], ids=["a part", "its folder"])
@pytest.mark.parametrize("verb", ["png", "coco", "overlay", "report", "inspect", "status"])
def test_what_a_run_lacks_is_said_and_the_exit_code_is_1(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, gone: str
) -> None:
    with_manifest(run)
    place = run / f"frames/video={VIDEO}/{gone}"
    place.unlink() if gone else shutil.rmtree(place)
    out = str(tmp_path / "out")
    commands = {
        "report": ["report", "--input", str(run), "--output", out],
        "inspect": ["inspect", "--run", str(run), "--output", out],
        "status": ["status", str(run)],
    }
    export = ["export", "--run", str(run), "--output", out, "--format", verb]
    assert cli.main(commands.get(verb, export)) == 1
    said = "".join(capsys.readouterr())
    assert f"frames/video={VIDEO}/{gone}" in said and "is missing" in said and "Traceback" not in said
    if verb == "png" and gone:
        assert len(list((tmp_path / "out").rglob("*.png"))) == 15


@pytest.mark.parametrize("verb", ["png", "coco", "overlay", "report", "inspect", "compact", "verify"])
def test_a_damaged_part_is_named_and_the_exit_code_is_1(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    with_manifest(run)
    bad = f"frames/video={VIDEO}/part-00000-000002.parquet"
    data = (run / bad).read_bytes()
    (run / bad).write_bytes(data[: len(data) // 2])
    out = str(tmp_path / "out")
    commands = {
        "report": ["report", "--input", str(run), "--output", out],
        "inspect": ["inspect", "--run", str(run), "--output", out],
        "compact": ["compact", "--run", str(run)],
        "verify": ["status", str(run), "--verify"],
    }
    export = ["export", "--run", str(run), "--output", out, "--format", verb]
    assert cli.main(commands.get(verb, export)) == 1
    said = "".join(capsys.readouterr())
    assert bad in said and "is damaged" in said and "Traceback" not in said


def test_status_verify_counts_what_it_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_manifest(run)
    assert cli.main(["status", str(run), "--verify"]) == 0
    assert "5 files read, 0 damaged" in capsys.readouterr().out
    older = run / f"frames/video={VIDEO}/part-00000-000001.parquet"
    older.write_bytes(older_bytes(pq.read_table(pa.BufferReader(older.read_bytes()))))
    assert cli.main(["status", str(run), "--verify"]) == 0
    assert "1 have no checksums (older version): their masks were decoded" in capsys.readouterr().out
