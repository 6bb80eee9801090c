"""Promise: a disk that is full gives one sentence with the path, and no stub stays, whoever writes.

Why: exports of overlays ended with a segmentation fault and a file of 0 bytes (FFmpeg's muxers are no match
for a write that fails), those of PNG files with pages of traceback and a PNG cut in the middle.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.disks import little_room
from tests.store.builders import put_run
from vidseg_core.cli import main as cli
from vidseg_core.config.inspect import InspectConfig
from vidseg_core.config.report import ReportConfig
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scene_files import write_scene_video
from vidseg_core.drawing import export_overlay
from vidseg_core.inspection.inspect_job import run_inspect
from vidseg_core.kit.progress import Reporter
from vidseg_core.report.report_job import run_report
from vidseg_core.store import WriteError, compact, open_run, open_store
from vidseg_core.store.atomic import whole_file, write_whole

ROOT = Path(__file__).parents[2]
OVERLAY = """
import resource, sys
sys.dont_write_bytecode = True
from pathlib import Path
from tests.store.test_full_disk import overlay
resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
try:
    overlay(Path(sys.argv[1]))
except Exception as error:
    print(error)
"""


def overlay(place: Path) -> None:
    """More frames than the muxer holds back, so that it writes while frames still come."""
    rng = np.random.default_rng(0)
    pictures = ((n, rng.integers(0, 255, (240, 320, 3)).astype(np.uint8)) for n in range(400))
    export_overlay(open_run(place / "run"), "a", pictures, place / "a.mp4")


def _inspect(place: Path, *show: str) -> None:
    config = InspectConfig(run=str(place / "run"), output=str(place / "look"), show=show)
    run_inspect(config, Reporter("text", io.StringIO()))


def _report(place: Path) -> None:
    config = ReportConfig(input=(str(place / "run"),), output=str(place / "page"))
    run_report(config, Reporter("text", io.StringIO()))


WRITERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "why": (lambda place: _inspect(place, "why"), "look/a-1f-why.csv"),
    "sheet": (lambda place: _inspect(place, "sheet"), "look/a-1f-sheet.png"),
    "report": (_report, "page/plots/"),
    "scene": (lambda place: write_scene_video(place / "scene.mp4", SceneConfig(frames=3)), "scene_labels/"),
    "compact": (lambda place: compact(place / "run"), "frames/video=a-1f/span-00000-000000-000004.parquet"),
    "put": (lambda place: open_store(place / "run").put("run.json", b"x" * 200), "run.json"),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    put_run(open_store(tmp_path / "run"))
    return tmp_path


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_sentence_and_leaves_no_stub(name: str, place: Path) -> None:
    write, target = WRITERS[name]
    before = _files(place)
    with little_room(100), pytest.raises(WriteError) as caught:
        write(place)
    assert re.search(rf"cannot write .*{re.escape(target)}.*: File too large$", str(caught.value))
    assert _files(place) == before
    write(place)
    assert len(_files(place)) != len(before) or name == "put"


def test_a_video_on_a_full_disk_does_not_end_the_process(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OVERLAY, str(place)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"cannot write {place / 'a.mp4'}: File too large\n"
    assert not [path for path in place.iterdir() if path.name != "run"]


@pytest.mark.parametrize("room", [10, 2_000, 60_000])
def test_a_video_that_finds_no_room_on_its_way_is_not_there(place: Path, room: int) -> None:
    (place / "a.mp4").write_bytes(b"of yesterday")
    with little_room(room), pytest.raises(WriteError, match=r"a\.mp4: File too large"):
        overlay(place)
    assert (place / "a.mp4").read_bytes() == b"of yesterday"
    assert {path.name for path in place.iterdir()} == {"run", "a.mp4"}


@pytest.mark.parametrize("kind", ["png", "coco"])
def test_the_verb_ends_with_1_and_without_a_traceback(
    place: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--run", str(place / "run"), "--output", str(place / "out"), "--format", kind]
    with little_room(100):
        assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"cannot write {place / 'out'}" in said and "too large" in said


def test_an_error_of_the_writer_leaves_nothing_either(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "file") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole_and_no_link_is_followed_halfway(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old")
    write_whole(tmp_path / "file", b"new")
    assert _files(tmp_path) == {"file": b"new"}


PLAIN = re.compile(r"\.write_(text|bytes)\(|open\(.*[\"'][wax]\+?b?[\"']|\.save\([a-z_]+ / ")
ALLOWED = {
    "vidseg_core/cli/runner.py": "standard error, which is open already",
    "vidseg_core/doctor.py": "a probe, removed at once",
    "vidseg_core/kit/claim.py": "a lock",
    "vidseg_core/kit/ray_log.py": "a log that is added to",
    "vidseg_core/models/fetched.py": "into a cache that others read, beside the file and then in its place",
    "vidseg_core/store/atomic.py": "the one place",
    "vidseg_core/store/local_store.py": "a lock",
    "vidseg_core/store/video_file.py": "into the one place",
    "vidseg_core/training/ray_group.py": "a log that is added to, and may fail",
}


def test_every_writer_writes_whole_files() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("vidseg_core", "jobs")
        for path in (ROOT / folder).rglob("*.py")
        if PLAIN.search(path.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED), "write with vidseg_core.store.atomic, or say here why not"
