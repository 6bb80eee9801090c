"""Promise: the page of a run shows its masks, its classes over time and a short clip that a browser plays,
all inside the page and of a bounded size; a source that is gone costs the frames and the clip.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import av
import numpy as np
import pytest

from tests.inspection.test_inspect import FRAMES
from tests.inspection.test_preview import made_run
from tests.pipeline.clips import moving_disc, write_video
from tests.report.test_page import report, write_run
from vidseg_core.drawing import Painter
from vidseg_core.report import run_pictures
from vidseg_core.report.run_pictures import Shown, share_plot
from vidseg_core.store import open_run

NAME = "clip-0123456789"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    source = write_video(folder / "clip.mp4", moving_disc(FRAMES, 48, 64), fps=10)
    return Path(made_run(folder / "run", source, [NAME, "other-0123456789"]))


def test_masks_classes_and_a_clip_are_inside_the_page(run: Path, tmp_path: Path) -> None:
    page, _ = report(tmp_path / "page", run, strip_frames=2, clip=NAME)
    assert "with masks" in page and "Classes over time" in page and "is shown without" not in page
    assert re.findall(r"<th>(frame \d+)</th>", page) == ["frame 5", "frame 19"]  # keys are 0 and 10
    (film,) = re.findall(r'<video controls [^>]*src="data:video/mp4;base64,([^"]+)"', page)
    with av.open(io.BytesIO(base64.b64decode(film)), "r") as container:
        assert sum(1 for _ in container.decode(video=0)) == FRAMES
    assert "media-src data:" in page and "<script" not in page


def test_a_source_that_is_gone_costs_frames_and_clip(tmp_path: Path) -> None:
    page, said = report(tmp_path / "page", write_run(tmp_path / "run"))
    assert "is shown without its frames" in page and "with masks" in page and "<video" not in page
    assert "not shown: clip: " in said and "a.mp4" in said


def test_a_clip_that_cannot_be_made_small_is_left_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_run(run)
    (row,) = (row for row in opened.videos().to_pylist() if row["video_id"] == NAME)
    assert run_pictures._clip(opened, row, Painter()) is not None
    monkeypatch.setattr(run_pictures, "CLIP_BYTES", 100)
    assert run_pictures._clip(opened, row, Painter()) is None


def test_many_classes_are_drawn_as_the_largest_and_the_others() -> None:
    share = np.full((30, 40), 0.5 / 39)
    share[:, 7] = 0.5
    shown = Shown(
        video_id="v",
        number=np.arange(30),
        is_key=np.arange(30) % 10 == 0,
        seconds=np.full(30, np.nan),
        share=share,
    )
    (axes,) = share_plot([shown], Painter(), "n").figure().axes
    labels = axes.get_legend_handles_labels()[1]
    assert len(labels) == run_pictures.MOST_CLASSES + 1
    assert labels[-1] == "other classes" and "class 7" in labels and axes.get_xlabel() == "frame"
