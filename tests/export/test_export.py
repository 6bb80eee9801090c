"""Promise: an export writes what was asked for and nothing else anywhere: not into a run, not over what is
there; what cannot be written or read is one sentence and the right exit code.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.disks import little_room
from tests.export.runs import FRAMES, HEIGHT, VIDEOS, WIDTH, export, put_video
from vidseg_core.cli import main as cli
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.export import ExportConfig, parse_frames
from vidseg_core.config.inspect import InspectConfig
from vidseg_core.export import clip
from vidseg_core.export.formats import FORMATS
from vidseg_core.export.sources import Sources
from vidseg_core.export.take import png, write_file
from vidseg_core.inspection.inspect_job import run_inspect
from vidseg_core.kit.progress import Reporter
from vidseg_core.plan.video_list import VideoInput, VideoList
from vidseg_core.store import StoreError, WriteError, encode_videos, open_run, open_store
from vidseg_core.store.keys import INPUTS_KEY


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("form", FORMATS)
def test_everything_that_a_format_writes_is_in_the_table(run: Path, tmp_path: Path, form: str) -> None:
    """So that nothing of it is ever written over unasked."""
    code, said = export(run, tmp_path / "out", form)
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert code == 0 and made == sorted(FORMATS[form].targets(VIDEOS)) and str(tmp_path / "out") in said
    with pytest.raises(ConfigError, match=r"--output: .*is there already; .*--overwrite"):
        export(run, tmp_path / "out", form)


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_is_one_sentence_and_leaves_no_stub(
    run: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise_HW3 = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)  # decoding wants room
    monkeypatch.setattr(Sources, "frame", lambda *_, **__: noise_HW3)
    monkeypatch.setattr(clip, "source_frames", lambda *_, **__: enumerate([noise_HW3] * FRAMES))
    with little_room(100), pytest.raises(WriteError, match=r"cannot write .*out/.*: File too large$"):
        export(run, tmp_path / "out", form)
    assert all(len(data) <= 100 for data in files(tmp_path / "out").values())


@pytest.mark.parametrize(
    ("options", "numbers"),
    [({"frames": "2-5:3"}, [2, 5]), ({"keys_only": True}, [0, 3]), ({"from_s": 0.2, "to_s": 0.4}, [2, 3])],
)
def test_frames_are_chosen_by_number_time_and_kind(
    run: Path, tmp_path: Path, options: dict[str, Any], numbers: list[int]
) -> None:
    _, said = export(run, tmp_path / "out", "png", video=VIDEOS[:1], **options)
    assert [int(path.stem) for path in sorted((tmp_path / "out" / VIDEOS[0]).iterdir())] == numbers
    assert f"{len(numbers)} masks in" in said


@pytest.mark.parametrize("place", ["", "export", "frames/x", "../other/export"])
def test_nothing_is_written_into_a_run(run: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "other/frames/video=a").mkdir(parents=True)
    before = files(tmp_path)
    with pytest.raises(ConfigError, match="--output: .* belongs to the run .*; choose a folder outside"):
        export(run, run / place, "png")
    with pytest.raises(ConfigError, match="--output: .* belongs to the run"):
        look(run, run / place)
    assert files(tmp_path) == before
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(ConfigError, match="belongs to the run"):
        export(run, tmp_path / "link" / "x", "png")


def test_the_same_export_again_has_the_same_bytes(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out", "cvat")
    before = files(tmp_path / "out")
    assert export(run, tmp_path / "out", "cvat", overwrite=True)[0] == 0 and files(tmp_path / "out") == before


def test_exports_lie_beside_each_other_unless_they_meet(run: Path, tmp_path: Path) -> None:
    for word in ("clip", "other"):
        assert export(run, tmp_path / "out", "png", video=(word,))[0] == 0
    assert len(files(tmp_path / "out")) == 2 * FRAMES
    with pytest.raises(ConfigError, match="is there already"):
        export(run, tmp_path / "out", "png", video=("clip",), frames="3")


# --- sources ------------------------------------------------------------------------------------------------


def test_a_source_that_is_gone_leaves_its_video_out(run: Path, tmp_path: Path) -> None:
    (tmp_path / "films/clip.mp4").unlink()
    code, said = export(run, tmp_path / "out", "coco")
    assert (
        code == 3
        and f"{VIDEOS[0]}: frames left out" in said
        and "--sources DIR" in said
        and "--no-images" in said
    )
    images = json.loads((tmp_path / "out/coco.json").read_text())["images"]
    assert {image["video_id"] for image in images} == {VIDEOS[1]}
    assert all((tmp_path / "out/images" / image["file_name"]).is_file() for image in images)
    assert export(run, tmp_path / "masks", "coco", images=False)[0] == 0
    code, said = export(run, tmp_path / "overlays", "overlay")
    assert code == 3 and sorted(files(tmp_path / "overlays")) == [f"{VIDEOS[1]}.mp4"]


def test_what_needs_no_source_is_not_said_to_lack_it(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "films")
    code, said = look(run, tmp_path / "out", export="png", show=("frame",), frames="1")
    assert code == 3 and "shown without its frames" in said and "left out" not in said
    assert export(run, tmp_path / "png", "png")[0] == 0


def test_videos_that_moved_are_found_by_name(run: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "films", tmp_path / "archive/2024/films")
    assert export(run, tmp_path / "lost", "yolo")[0] == 3
    code, _ = export(run, tmp_path / "out", "yolo", sources=str(tmp_path / "archive"))
    assert code == 0 and len(list((tmp_path / "out/images").iterdir())) == 2 * FRAMES
    assert look(run, tmp_path / "look", sources=str(tmp_path / "archive"), show=("sheet",))[0] == 0


def test_a_folder_of_frames_that_moved_is_a_folder_of_frames(tmp_path: Path) -> None:
    put_video(tmp_path / "run", VIDEOS[0], "/gone/shots/")
    (tmp_path / "films/x/shots").mkdir(parents=True)
    (tmp_path / "films/shots").write_bytes(b"no folder")
    for number in range(FRAMES):
        shade_HW3 = np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8)
        write_file(tmp_path / f"films/x/shots/{number:04d}.png", png(shade_HW3))
    code, _ = export(tmp_path / "run", tmp_path / "out", "yolo", sources=str(tmp_path / "films"))
    assert code == 0 and len(list((tmp_path / "out/images").iterdir())) == FRAMES


def test_of_two_files_of_one_name_the_nearer_is_taken_or_none(run: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "films", tmp_path / "archive/films")
    for place in ("old", "other"):
        shutil.copytree(tmp_path / "archive/films", tmp_path / f"archive/{place}")
    assert export(run, tmp_path / "out", "cvat", sources=str(tmp_path / "archive"))[0] == 0
    shutil.rmtree(tmp_path / "archive/films")
    code, said = export(run, tmp_path / "none", "cvat", sources=str(tmp_path / "archive"))
    assert code == 3 and "both have its name" in said
    with pytest.raises(ConfigError, match="--sources: .*is no folder"):
        export(run, tmp_path / "x", "cvat", sources=str(tmp_path / "nowhere"))


def test_a_file_that_has_taken_the_place_of_a_video_is_not_that_video(run: Path, tmp_path: Path) -> None:
    films = [tmp_path / f"films/{name}.mp4" for name in ("clip", "other")]
    listed = zip(VIDEOS, films, strict=True)
    inputs = [VideoInput(video_id=v, uri=str(f), size=f.stat().st_size, stamp="") for v, f in listed]
    pq.write_table(VideoList.of(inputs[::-1]).table, sink := io.BytesIO())
    open_store(run).put(INPUTS_KEY, sink.getvalue())
    assert export(run, tmp_path / "first", "yolo")[0] == 0
    films[0].write_bytes(films[1].read_bytes() + b"more")
    for options in ({}, {"sources": str(tmp_path / "films")}):
        code, said = export(run, tmp_path / f"out{len(options)}", "yolo", **options)
        assert code == 3 and f"{films[0]} is another file" in said and "its size differs" in said
        assert len(list((tmp_path / f"out{len(options)}/images").iterdir())) == FRAMES


def test_a_source_is_read_within_the_limits_of_its_run(run: Path, tmp_path: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    info["config"] = {"media": {"max_pixels": 100, "decode_deadline_s": 20.0, "memory_mib": 999}}
    (run / "run.json").write_text(json.dumps(info))
    for form in ("yolo", "overlay"):
        code, said = export(run, tmp_path / form, form)
        assert code == 3 and "is over the limit of 100 pixels" in said


# --- which videos and frames --------------------------------------------------------------------------------


def look(run: Path, out: Path, **options: Any) -> tuple[int, str]:
    text = io.StringIO()
    return run_inspect(
        InspectConfig(run=str(run), output=str(out), **options), Reporter("text", text)
    ), text.getvalue()


def test_the_beginning_of_an_id_is_enough_where_it_is_one(run: Path, tmp_path: Path) -> None:
    put_video(run, "clip-0199", tmp_path / "films/clip.mp4")
    assert export(run, tmp_path / "out", "png", video=("clip-012", "o"))[0] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(VIDEOS)
    several = "--video: 'clip-01' begins 2 videos of .*: clip-0123456789, clip-0199"
    nobody = r"--video: .* has no video 'klip-0123456789' \(did you mean"
    for word, says in (("clip-01", several), ("klip-0123456789", nobody)):
        with pytest.raises(ConfigError, match=says):
            export(run, tmp_path / "x", "png", video=(word,))
        with pytest.raises(ConfigError, match=says):
            look(run, tmp_path / "x", video=(word,))
    assert look(run, tmp_path / "look", video=("other",), show=("why",))[0] == 0


def test_a_video_that_is_quarantined_is_said_to_be_where_it_is_meant(run: Path, tmp_path: Path) -> None:
    for video_id in ("bad-0123456789", f"{VIDEOS[0]}-2"):
        (row,) = open_run(run).videos().slice(0, 1).to_pylist()
        row |= {
            "video_id": video_id,
            "status": "quarantined",
            "reason": "not_a_video: no",
            "decoded_frames": 0,
        }
        open_store(run).put(f"videos/{video_id}.parquet", encode_videos([row]))
    says = "no frames of bad-0123456789, which is quarantined: not_a_video"
    with pytest.raises(ConfigError, match=says):
        look(run, tmp_path / "x", video=("bad",))
    with pytest.raises(ConfigError, match=says):
        export(run, tmp_path / "x", "png", video=("bad",))
    assert "quarantined" not in look(run, tmp_path / "look", video=VIDEOS[:1], show=("why",))[1]
    assert look(run, tmp_path / "look", show=("why",))[1].count("quarantined") == 2


def test_open_run_takes_the_beginning_of_an_id_too(run: Path) -> None:
    opened = open_run(run)
    assert opened.video_id("cl") == VIDEOS[0] and opened.video_id(VIDEOS[1]) == VIDEOS[1]
    assert len(list(opened.rows("clip"))) == FRAMES
    assert (opened.mask("clip", 3) == opened.mask(VIDEOS[0], 3)).all()
    assert opened.frames(["clip"]).count_rows() == FRAMES
    for word in ("", "nobody", "-"):
        with pytest.raises(StoreError, match="no frames of video"):
            opened.video_id(word)
    put_video(run, "clip-0199", run)
    with pytest.raises(StoreError, match="'clip' begins several videos: clip-0123456789, clip-0199"):
        opened.rows("clip")


def test_inspect_exports_what_it_picked(run: Path, tmp_path: Path) -> None:
    code, said = look(run, tmp_path / "out", export="yolo", frames="2-3", limit=1)
    assert code == 0 and "2 frames in" in said
    names = [path.stem for path in sorted((tmp_path / "out/yolo/images").iterdir())]
    assert names == [f"{VIDEOS[0]}-{number:08d}" for number in (2, 3)]
    assert not list((tmp_path / "out").glob("*.csv"))  # an export alone shows nothing
    assert look(run, tmp_path / "out", export="yolo", show=("why",), overwrite=True)[0] == 0
    assert len(list((tmp_path / "out").glob("*.csv"))) == 2


def test_frames_are_named_by_number_range_and_step() -> None:
    assert parse_frames("5, 10-20, 0-100:25") == ((5, 5, 1), (10, 20, 1), (0, 100, 25))
    for text in ("x", "5-", "9-3", "1-9:0", "-4"):
        with pytest.raises(ConfigError, match="--frames"):
            parse_frames(text)


def test_no_frame_at_all_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--frames: no frame of"):
        export(run, tmp_path / "out", "png", frames="900")
    assert not (tmp_path / "out").exists()


def test_a_run_with_nothing_in_it_is_said(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "frames")
    shutil.rmtree(run / "videos")
    with pytest.raises(StoreError, match="holds no frame yet"):
        export(run, tmp_path / "out", "coco")
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_finished_is_exported_and_said_to_be_open(run: Path, tmp_path: Path) -> None:
    assert "note" not in export(run, tmp_path / "whole", "yolo")[1]
    (run / "_SUCCESS").unlink()
    said = export(run, tmp_path / "open", "yolo")[1]
    assert "is not finished" in said and "run.json" not in said
    (run / "run.json").unlink()
    said = export(run, tmp_path / "nameless", "yolo")[1]
    assert "is not finished" in said and "no class has a name" in said
    assert "each class is one object" not in said, "a line is a connected piece"


def test_progress_is_by_frame(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        Reporter, "show", lambda self, text, fields, force=False: lines.append((text, fields))
    )
    export(run, tmp_path / "out", "png")
    assert [fields["frames"] for _, fields in lines] == list(range(1, 2 * FRAMES + 1))
    assert lines[5][0].startswith("exporting | frames 6/12 (50 %)")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"format": "jpg"}, "--format: must be one of png"),
        ({"frames": ", ,"}, "--frames: names no frame"),
        ({"frames": "3", "to_s": 1.0}, "--frames: and a time range"),
        ({"from_s": 2.0, "to_s": 1.0}, "--from_s"),
        ({"output": "s3://bucket/x"}, "--output: must be a local folder"),
        ({"sources": "s3://bucket/x"}, "--sources: must be a local folder"),
        ({"overlay_size": 3}, "--overlay_size"),
    ],
)
def test_what_cannot_be_asked_for_is_said_at_once(options: dict[str, Any], says: str) -> None:
    wanted: dict[str, Any] = {"run": "x", "output": "y"} | options
    with pytest.raises(ConfigError, match=says):
        ExportConfig(**wanted)


def test_the_verb_says_where_it_wrote(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "--run", str(run), "--output", str(tmp_path / "o"), "--format", "davis", "--no-images"]
    assert cli.main(words) == 0
    assert f"{2 * FRAMES} frames in {tmp_path / 'o'}" in capsys.readouterr().err
