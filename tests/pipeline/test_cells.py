"""Promise: over how many executors a wave is dealt changes no row, nor does an executor that dies, nor when
the next wave is planned.

Why: on a large cluster one executor is the bottleneck, so there are several, each in a Ray task that lives on
a spot machine like everything else.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.pipeline.clips import make_corpus, write_video
from tests.pipeline.conftest import small_config
from tests.pipeline.failing import bad_clip
from tests.pipeline.inline import rows_without_package, run_inline
from vidseg_core.kit.progress import Reporter
from vidseg_core.media import MediaLimits
from vidseg_core.pipeline import sizing
from vidseg_core.pipeline.failures import MOST_FAILURES
from vidseg_core.pipeline.on_ray import RayExecutor
from vidseg_core.pipeline.plan_stage import PlanOptions, PlanStage
from vidseg_core.pipeline.planning import RayPlanning
from vidseg_core.pipeline.segment_job import run_segment
from vidseg_core.plan.inputs import expand_inputs
from vidseg_core.store.objects import open_store
from vidseg_core.store.run import open_run

pytestmark = pytest.mark.ray
LENGTHS = (60, 45, 30, 30)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("clips"), LENGTHS)


@pytest.fixture(scope="module")
def expected(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    """The rows without Ray."""
    output = tmp_path_factory.mktemp("plain") / "out"
    run_inline(small_config(clips, output), 2)
    return rows_without_package(output)


def test_several_cells_give_the_same_rows(
    clips: Path,
    expected: list[tuple],
    tmp_path: Path,
    run_job: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sizing, "MAX_BRANCHES", 2)  # three branches: a cell of two, and one of one
    code, text = run_job(clips, tmp_path / "out", workers=3)
    assert code == 0, text
    assert rows_without_package(tmp_path / "out") == expected


def test_a_killed_cell_loses_and_doubles_nothing(
    clips: Path, expected: list[tuple], tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "MAX_BRANCHES", 1)
    output, said, codes = tmp_path / "out", io.StringIO(), []
    config = small_config(clips, output, segmenter="tests.pipeline.slow:SlowPlain")
    thread = threading.Thread(target=lambda: codes.append(run_segment(config, Reporter("json", said))))
    thread.start()
    while thread.is_alive() and len(list(output.glob("frames/*/part-*"))) < 2:
        time.sleep(0.05)
    cells = [p for p in psutil.Process().children(recursive=True) if "ray::_cell" in " ".join(p.cmdline())]
    assert len(cells) == 2
    cells[0].kill()
    thread.join(200)
    assert codes == [0] and "a cell was lost" in said.getvalue(), said.getvalue()
    assert f'"frames": {sum(LENGTHS)}, "frames_total": {sum(LENGTHS)}' in said.getvalue(), "told once each"
    run_inline(small_config(clips, tmp_path / "plain", segmenter="tests.pipeline.slow:SlowPlain"), 2)
    assert rows_without_package(output) == rows_without_package(tmp_path / "plain")
    assert open_run(output).complete


def test_an_error_in_a_cell_is_told_as_one_in_the_driver(
    tmp_path: Path, run_job: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "MAX_BRANCHES", 1)
    for number in range(2 * MOST_FAILURES):
        write_video(tmp_path / f"in/{number}.mp4", bad_clip(2, from_frame=0))
    code, text = run_job(tmp_path / "in", tmp_path / "out", segmenter="tests.pipeline.failing:RaisesOnRed")
    assert code == 1 and "failed: EngineBroken" in text and "Traceback" not in text, text
    assert not (tmp_path / "out/_SUCCESS").exists()


def test_waves_that_are_planned_ahead_give_the_same_rows(
    clips: Path,
    expected: list[tuple],
    tmp_path: Path,
    run_job: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RayExecutor, "wave_videos", 2)
    code, text = run_job(clips, tmp_path / "out")
    assert code == 0 and f"videos 4/4 | frames {sum(LENGTHS)}/{sum(LENGTHS)}" in text, text
    assert rows_without_package(tmp_path / "out") == expected


def test_a_plan_is_read_in_order_however_it_was_made(clips: Path, tmp_path: Path, local_ray: None) -> None:
    options = PlanOptions(working_size=64, segment_frames=30, shard_frames=8, single_shards=False)
    stage = PlanStage(open_store(tmp_path), MediaLimits(), options)
    videos = expand_inputs([str(clips)])
    at_once, ahead, given_up = (RayPlanning(videos, stage) for _ in range(3))
    ahead.pump()
    ahead.pump()  # too early to do anything
    given_up.pump()
    given_up.close()
    tables = list(at_once.tables())
    assert sum(table.num_rows for table in tables) == len(videos)
    assert list(ahead.tables()) == tables
    assert list(given_up.tables()) == []
