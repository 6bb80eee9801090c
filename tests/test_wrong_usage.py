"""Promise: a wrong command ends with one sentence that names what is wrong and the exit code of its kind,
without a traceback and without a folder left behind; what can be said without torch, Ray or OpenCV is said
before they are imported.

Add a row for each way in which an option of yours can be used wrongly. Commands are given in a folder that
holds `clip.mp4` (8 frames), `notes.txt` (no video), `cut.csv` and `list.csv` (lists with an fps that is no
number, an id that is none), `frames/` (three pictures), `empty/`, `masks/` (a finished run of videos `a` and
`a-1f`, whose sources are gone) and `begun/` (a run that has committed nothing).
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.pipeline.clips import moving_disc, write_video
from tests.store.builders import put_run
from vidseg_core.cli import main as cli
from vidseg_core.store import LocalStore


class Wrong(NamedTuple):
    command: str
    """without `vidseg`"""
    says: str
    """part of what is said"""
    code: int = 2
    light: bool = False
    """said before anything heavy is imported"""


WRONG = [
    Wrong("segmnet", "there is no verb 'segmnet' (did you mean 'segment'?)", light=True),
    Wrong("segment --input clip.mp4 --segmenter plain", "--output", light=True),
    Wrong("segment clip.mp4 --segmenter plain", "--output", light=True),
    Wrong("segment --preview --output out --segmenter plain", "--input", light=True),
    Wrong(
        "segment --input clip.mp4 --output out --lanes no --segmenter plain",
        "--lanes: must be a whole number",
        light=True,
    ),
    Wrong(
        "segment --input clip.mp4 --output notes.txt --segmenter plain",
        "notes.txt is a file, not a folder",
        light=True,
    ),
    Wrong(
        "segment --input clip.mp4 --output out --weights none.pt --segmenter plain",
        "none.pt does not exist",
        light=True,
    ),
    Wrong(
        "segment --input clpi.mp4 --output out --segmenter plain",
        "clpi.mp4: no such file or directory",
        light=True,
    ),
    Wrong(
        "segment --input empty --output out --segmenter plain",
        "empty: no videos in this directory",
        light=True,
    ),
    Wrong(
        "segment --input clip.mp4 --output out --segmenter plain --media.sequence_fps 0",
        "--media.sequence_fps: must be",
        light=True,
    ),
    Wrong(
        "segment --input frames#fps=2000 --output out --segmenter plain",
        "a sequence has 0.001 to 1000 frames a second",
        light=True,
    ),
    Wrong(
        "segment --input frames --output out --segmenter plain",
        "pictures without a number beside frames (cover.jpg); name the frames with a pattern",
        light=True,
    ),
    Wrong(
        "segment --input frames/*1.jpg --output out --segmenter plain",
        "the pattern matches 1 of the 2 frames of this sequence; name it whole",
        light=True,
    ),
    Wrong(
        "segment --input http://127.0.0.1:9/a.mp4 --output out --segmenter plain",
        "http://127.0.0.1:9/a.mp4: cannot be reached",
        light=True,
    ),
    Wrong(
        "segment --input https://x/a.mp4?sig=abc --output out --segmenter plain",
        "--input: holds credentials (https://x/a.mp4?sig=***)",
        light=True,
    ),
    Wrong(
        "segment --input ftp://x/a.mp4 --output out --segmenter plain",
        "only local paths and addresses of s3://, https://",
        light=True,
    ),
    Wrong(
        "segment --input list.csv --output out --segmenter plain",
        "row 2 has the video_id 'nan'; leave it empty where there is none",
        light=True,
    ),
    Wrong("segment --input clip.mp4 --output out", "--segmenter: say which net segments", light=True),
    Wrong("pseudo-label --input clip.mp4 --output out", "--segmenter tiny-face", light=True),
    Wrong("segment --input clip.mp4 --output out --segmenter vok", "did you mean 'voc'", light=True),
    Wrong(
        "segment --input clip.mp4 --output out --segmenter hf:empty",
        "needs a local folder with a config.json",
    ),
    Wrong("segment --input clip.mp4 --output out --segmenter fastseg:1", "should read fastseg:128"),
    Wrong(
        "segment --input clip.mp4 --output out --segmenter plain --media.fps 0",
        "--media.fps: must be above 0, got 0",
        light=True,
    ),
    Wrong(
        "segment --input clip.mp4 --output out --segmenter plain --media.start_s 9 --media.end_s 3",
        "--media.end_s: must be after start_s (9), got 3",
        light=True,
    ),
    Wrong(
        "segment --input clip.mp4 --output out --segmenter plain --media.hdr tonemap",
        "--media.hdr",
        light=True,
    ),
    Wrong(
        "segment --input cut.csv --output out --segmenter plain", "cut.csv: row 2: fps is no number: 'all'"
    ),
    Wrong("export --run masks --output out --video b", "has no video 'b'"),
    Wrong("export --run masks --output out --format overlay --opacity 2", "--opacity: must be from 0 to 1"),
    Wrong("export --run empty --output out", "empty is not a vidseg run"),
    Wrong("export --run begun --output out", "begun is not a vidseg run"),
    Wrong("export --run masks --output out --format yoloo", "yoloo"),
    Wrong("export --run masks --output masks/out", "--output: masks/out belongs to the run", light=True),
    Wrong("export --run masks --output out --frames 5-", "--frames: '5-' is neither a number nor a range"),
    Wrong("export --run masks --output out --frames 900", "--frames: no frame of a-1f, a is among them"),
    Wrong("export --run masks --output out --sources gone", "--sources: gone does not exist", light=True),
    Wrong("inspect --run masks --output masks", "--output: masks belongs to the run", light=True),
    Wrong("status --run mask", "--run: mask does not exist (did you mean 'masks'?)", light=True),
    Wrong("evaluate --data camvid:x --output out", "--data: x does not exist", light=True),
    Wrong("train-segmenter --data clips/*?size=64 --output out", "clips/*"),
    Wrong("report --input maskss --output out", "--input: maskss does not exist", light=True),
    Wrong("train-policy --tables none --output out", "--tables: none does not exist", light=True),
]
HEAVY = """
import os, sys, json
from vidseg_core.cli import main as cli
for command in json.load(sys.stdin):
    cli.main(command)
    loaded = [name for name in ("torch", "ray", "cv2") if name in sys.modules]
    assert not loaded, (command, loaded)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    write_video(folder / "clip.mp4", moving_disc(8, 48, 64))
    (folder / "notes.txt").write_text("no video")
    (folder / "cut.csv").write_text("uri,fps\nclip.mp4,all\n")
    (folder / "list.csv").write_text("uri,video_id\nclip.mp4,nan\n")
    (folder / "empty").mkdir()
    (folder / "frames").mkdir()
    for name in ("cover.jpg", "1.jpg", "2.jpg"):
        (folder / "frames" / name).touch()
    put_run(LocalStore(str(folder / "masks")))
    (folder / "begun" / "frames").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("wrong", WRONG, ids=[wrong.command for wrong in WRONG])
def test_a_wrong_command_says_what_is_wrong(
    wrong: Wrong, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = sorted(os.listdir(place))
    code, said = cli.main(shlex.split(wrong.command)), "".join(capsys.readouterr())
    assert (code, wrong.says in " ".join(said.split())) == (wrong.code, True), said
    assert "Traceback" not in said
    assert sorted(os.listdir(place)) == before


def test_what_can_be_said_at_once_is_said_before_heavy_imports(place: Path) -> None:
    commands = json.dumps([shlex.split(wrong.command) for wrong in WRONG if wrong.light])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1])])}
    done = subprocess.run(
        [sys.executable, "-c", HEAVY],
        input=commands,
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
