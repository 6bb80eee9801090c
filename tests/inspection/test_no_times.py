"""Promise: a video whose frames have no times, or times that step back, can be looked at and exported like
any other.

What motivated it: times that are unknown are null since they are no longer made up, and every reader of
`pts_s` had counted on a number.
"""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest

from tests.media import clips
from tests.media.odd_files import Recipe, make
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import run_inline
from vidseg_core.cli.main import main
from vidseg_core.store import open_run

FILES = ("no times", "steps back")


@pytest.fixture(scope="module", params=FILES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    if request.param == "no times":
        source = clips.make(folder, "elementary.h264")
    else:
        source = make(folder, Recipe(codec="h264", container="ts", start=1000, joined_at=0))
    run_inline(small_config(source, folder / "run"), 1)
    return folder / "run"


def times_of(run: Path) -> list[float | None]:
    (video_id,) = (row["video_id"] for row in open_run(run).videos().to_pylist())
    return [row["pts_s"] for row in open_run(run).rows(video_id)]


def test_inspect_shows_it(run: Path, tmp_path: Path) -> None:
    words = ["--run", str(run), "--output", str(tmp_path), "--show", "why", "sheet", "overlay"]
    assert main(["inspect", *words]) == 0
    assert len(list(tmp_path.glob("*-sheet.png"))) == len(list(tmp_path.glob("*.mp4"))) == 1


def test_a_span_of_time_holds_the_frames_that_have_such_a_time(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--run", str(run), "--output", str(tmp_path), "--show", "why", "--from_s", "0.5", "--to_s", "1"]
    inside = [seconds for seconds in times_of(run) if seconds is not None and 0.5 <= seconds < 1]
    assert main(["inspect", *words]) == (0 if inside else 2)
    said = capsys.readouterr().err
    assert said.count("\n  ") >= len(inside) and "Traceback" not in said


def test_exports_and_report_take_it(run: Path, tmp_path: Path) -> None:
    assert main(["export", "--run", str(run), "--output", str(tmp_path), "--format", "coco"]) == 0
    images = json.loads((tmp_path / "coco.json").read_text())["images"]
    assert [image["pts_s"] for image in images] == times_of(run)
    assert main(["report", "--input", str(run), "--output", str(tmp_path / "page")]) == 0


def test_an_overlay_moves_on_steadily_where_times_do_not(run: Path, tmp_path: Path) -> None:
    assert main(["export", "--run", str(run), "--output", str(tmp_path), "--format", "overlay"]) == 0
    (path,) = tmp_path.glob("*.mp4")
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    steps = [round(b - a, 3) for a, b in zip(times, times[1:], strict=False)]  # type: ignore[operator]
    assert len(times) == 60 and set(steps) == {0.04}
