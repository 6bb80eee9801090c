"""Promise: ``--preview`` shows what a run made, beside its tables and in nobody's way, also of a run that was
finished before; a run with nothing to show says so and keeps its exit code.
"""

from __future__ import annotations

import io
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.inspection.test_inspect import FRAMES, VIDEO, frame_row
from tests.pipeline.clips import moving_disc, write_video
from tests.s3_server import S3Bucket
from vidseg_core.cli import main as cli
from vidseg_core.inspection.pick import telling
from vidseg_core.inspection.preview import MOST_VIDEOS, _most_frames, write_preview
from vidseg_core.kit.progress import Reporter
from vidseg_core.store import encode_part, encode_videos, open_run, open_store, part_key

ROW = {
    "status": "ok",
    "reason": None,
    "codec": "h264",
    "width": 64,
    "height": 48,
    "declared_frames": FRAMES,
    "decoded_frames": FRAMES,
    "corrupt_frames": 0,
    "keys": 2,
    "aki": 10.0,
    "duration_s": 2.0,
    "cpu_s": 1.0,
    "gpu_s": 0.0,
}


def made_run(folder: Path | str, source: Path, names: list[str]) -> str:
    """A finished run in which one source was segmented under several names."""
    store = open_store(folder)
    for name in names:
        rows = [frame_row(number) for number in range(FRAMES)]
        store.put(str(part_key(name, 0, 0)), encode_part(name, rows))
        store.put(f"videos/{name}.parquet", encode_videos([ROW | {"video_id": name, "uri": str(source)}]))
    return str(folder)


def shown(output: str) -> str:
    text = io.StringIO()
    write_preview(output, Reporter("text", text))
    return text.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "clip.mp4"
    return write_video(path, moving_disc(FRAMES, 48, 64), fps=10)


def test_a_command_leaves_a_clip_and_a_sheet_beside_its_tables_every_time(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = ["segment", str(source), "--output", str(output), "--segmenter", "plain"]
    for _ in range(2):  # the second time the run is finished
        assert cli.main([*command, "--executor", "local", "--preview"]) == 0
        said = capsys.readouterr().err
        (clip,) = (output / "preview").glob("*.mp4")
        (sheet,) = (output / "preview").glob("*.jpg")
        assert f"preview: {clip} ({FRAMES} frames with masks)" in said and str(sheet) in said
        with av.open(str(clip)) as container:
            assert sum(1 for _ in container.decode(video=0)) == FRAMES
        clip.unlink()
    picture = cv2.imread(str(sheet))
    assert picture is not None and picture.shape[1] > 600
    run = open_run(output)
    assert run.complete and sum(1 for _ in run.rows(run.videos()["video_id"][0].as_py())) == FRAMES
    assert cli.main(["status", str(output), "--verify"]) == 0


def test_few_of_many_videos_are_shown_also_on_s3_and_one_without_its_source_costs_itself(
    source: Path, tmp_path: Path, s3: S3Bucket
) -> None:
    names = [f"{letter}-0123456789" for letter in "abcde"]
    output = made_run(f"{s3.url}/run", source, names)
    gone = ROW | {"video_id": names[1], "uri": str(tmp_path / "gone.mp4")}
    open_store(output).put(f"videos/{names[1]}.parquet", encode_videos([gone]))
    said = shown(output)
    found = {info.key: info.size > 500 for info in open_store(output).list("preview/")}
    kept = {*names[:MOST_VIDEOS]} - {names[1]}
    assert found == {f"preview/{name}.{kind}": True for name in kept for kind in ("mp4", "jpg")}
    assert f"preview: {s3.url}/run/preview/{names[0]}.mp4" in said
    assert f"no preview of {names[1]}" in said and "these are the first 3 videos" in said


def test_a_run_with_nothing_in_it_has_no_preview(tmp_path: Path) -> None:
    bad = ROW | {"video_id": VIDEO, "uri": "bad.mp4", "status": "quarantined", "decoded_frames": 0}
    open_store(tmp_path / "run").put(f"videos/{VIDEO}.parquet", encode_videos([bad]))
    assert "no preview: none of the videos has a frame" in shown(str(tmp_path / "run"))
    assert not (tmp_path / "run" / "preview").exists()


def test_a_long_video_is_shown_by_its_first_minute() -> None:
    assert _most_frames({"decoded_frames": 250, "duration_s": 10.0}) == 250
    assert _most_frames({"decoded_frames": 30_000, "duration_s": 1200.0}) == 1500
    assert _most_frames({"decoded_frames": 30_000, "duration_s": None}) == 1800


@pytest.mark.parametrize("interval", [1, 5, 24, 48])
def test_sheets_show_frames_far_from_keys_and_never_only_keys(interval: int) -> None:
    """Every frame of a sheet was a key where columns fell on multiples of the interval."""
    rows = [{"frame_index": number, "is_key": number % interval == 0} for number in range(144)]
    for count in (1, 6, 12):
        chosen = [row["frame_index"] for row in telling(rows, count)]
        far = [min(abs(number - key) for key in range(0, 144, interval)) for number in chosen]
        assert len(chosen) == count and chosen == sorted(chosen)
        assert interval == 1 or np.sum(np.array(far) >= min(interval, 24) // 2) >= max(1, count // 2)
    assert len(telling(rows[:3], 12)) == 3
