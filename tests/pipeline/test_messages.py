"""Promise: what cannot work is said before anything starts, naming the option or file, with exit code 2.

Why: a job that fails an hour in, or with a stack trace of somebody else's library, costs people a day.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.clips import moving_disc, write_video
from tests.pipeline.conftest import small_config
from tests.pipeline.poison import write_poison
from vidseg_core.config.report import ReportConfig
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig
from vidseg_core.kit.progress import Counts, Reporter, clock, progress_line
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.report.report_job import run_report


def said(folder: Path | str, output: Path | str, style: str = "text", **options: Any) -> tuple[int, str]:
    """Exit code and what was printed; no Ray is needed to refuse."""
    text = io.StringIO()
    code = run_segment(small_config(folder, output, **options), Reporter(style, text))
    return code, text.getvalue()


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    code, text = said(tmp_path / "nowhere.mp4", tmp_path / "out")
    assert code == 2 and "nowhere.mp4" in text
    assert not (tmp_path / "out" / "_run").exists()


def test_a_folder_without_videos_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, text = said(tmp_path / "empty", tmp_path / "out")
    assert code == 2 and "no videos" in text and "empty" in text


def test_an_output_that_is_a_file_is_named(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("I was here first")
    code, text = said(corpus, tmp_path / "out")
    assert code == 2 and "--output" in text
    assert (tmp_path / "out").read_text() == "I was here first"


def test_weights_that_are_not_there_are_named(corpus: Path, tmp_path: Path) -> None:
    options = {"segmenter": "smp:DeepLabV3Plus/resnet18", "weights": str(tmp_path / "no.safetensors")}
    code, text = said(corpus, tmp_path / "out", **options)
    assert code == 2 and "no.safetensors" in text


def test_an_unknown_encoder_suggests_the_nearest(corpus: Path, tmp_path: Path) -> None:
    code, text = said(corpus, tmp_path / "out", segmenter="smp:DeepLabV3Plus/resnet5O")
    assert code == 2 and "resnet50" in text


def test_a_net_that_was_not_trained_is_marked_wherever_its_masks_are_spoken_of(tmp_path: Path) -> None:
    """Masks of random weights look like masks."""
    marked = "random weights (seed 0): its masks mean nothing"
    write_video(tmp_path / "in" / "a.mp4", moving_disc(4, 32, 32))
    places, random = (tmp_path / "in", tmp_path / "out"), {"segmenter": "tiny:8", "executor": "local"}
    assert marked in said(*places, **random, workers=1, dry_run=True)[1]
    code, text = said(*places, **random, workers=1)
    assert code == 0 and f"note: The segmenter 'tiny:8' has {marked}" in text
    assert f"  warning: The segmenter 'tiny:8' has {marked}" in text.partition("key-net calls saved")[2]
    found = json.loads((tmp_path / "out" / "run.json").read_text())["segmenter"]
    assert not found["trained"] and marked in found["warning"]
    page = ReportConfig(input=(str(tmp_path / "out"),), output=str(tmp_path / "page"))
    assert run_report(page, Reporter("text", io.StringIO())) == 0
    assert marked in (tmp_path / "page" / "index.html").read_text()


def test_a_dry_run_plans_estimates_and_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    code, text = said(corpus, tmp_path / "out", dry_run=True)
    assert code == 0
    assert "3 videos" in text and "170 frames" in text and "estimate from" in text
    assert "--scheduler.name every" in text and "nothing was written" in text
    assert "state: of a segment at most 19 frames and the keys are kept, up to" in text
    assert not (tmp_path / "out").exists()


def test_with_one_side_no_frame_waits(corpus: Path, tmp_path: Path) -> None:
    online = PropagationConfig(flow_size=96, sides="one")
    _, text = said(corpus, tmp_path / "out", dry_run=True, propagation=online)
    assert "state: of a segment the last key is kept, up to" in text


def test_a_dry_run_names_what_would_be_quarantined(tmp_path: Path) -> None:
    write_poison(tmp_path / "in")
    code, text = said(tmp_path / "in", tmp_path / "out", dry_run=True)
    assert code == 3 and "would be quarantined" in text and "empty.mp4" in text


def test_json_lines_are_json(corpus: Path, tmp_path: Path) -> None:
    _, text = said(corpus, tmp_path / "out", "json", dry_run=True)
    assert all(json.loads(line)["event"] for line in text.splitlines())


def test_a_scheduler_that_cannot_take_its_option_is_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--scheduler.threshold"):
        small_config(corpus, tmp_path, scheduler=SchedulerConfig(name="fixed", threshold=1.0))


def test_the_progress_line_has_plain_units() -> None:
    counts = Counts(
        videos=3, videos_total=10, frames=1200, frames_total=9000, resumed_frames=200, keys=60, quarantined=1
    )
    line = progress_line(counts, fps=100)
    assert line == (
        "videos 3/10 | frames 1,200/9,000 (13 %) | 100.0 fps | keys 5.0 % | quarantined 1 | ETA 1:18"
    )
    assert clock(3723.4) == "1:02:03"


def test_a_log_gets_a_line_now_and_then_not_a_carriage_return() -> None:
    text = io.StringIO()
    reporter = Reporter("text", text)
    for _ in range(50):
        reporter.tick(Counts(frames=1, frames_total=2))
    reporter.tick(Counts(frames=2, frames_total=2), force=True)
    assert text.getvalue().count("\n") == 1 and "\r" not in text.getvalue()
