"""Promise: Ray's table of workers distinguishes a crash from a kill that was wanted, and a job over a clip
that kills its engine ends with that clip quarantined.

Why: what is read there is not part of Ray's public interface; this is what goes red when it changes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from tests.pipeline.clips import make_corpus, write_video
from tests.pipeline.conftest import small_config
from tests.pipeline.failing import bad_clip
from tests.pipeline.inline import rows_without_package, run_inline
from vidseg_core.kit import worker_watch
from vidseg_core.kit.worker_watch import WorkersDie
from vidseg_core.pipeline.branches import data_context
from vidseg_core.pipeline.deaths import Fate
from vidseg_core.pipeline.ray_process import RayProcess
from vidseg_core.store.run import open_run

pytestmark = pytest.mark.ray
CRASHES = "tests.pipeline.failing:CrashesOnRed"


class Worker:
    """What an engine asks of its process."""

    def __init__(self) -> None:
        self.process = RayProcess()

    def facts(self) -> tuple[str, bool]:
        """Its name, and whether it replaces another."""
        return self.process.name, self.process.replaces_another

    def fate_of(self, name: str) -> str:
        """What became of another."""
        return str(self.process.fate_of(name))

    def die(self, name: str) -> None:
        """Die, if this is that process."""
        if self.process.name == name:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def worker(local_ray: None) -> Any:
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Worker).remote()


def judged(worker: Any, name: str) -> str:
    """What became of a process, once it is known: a call may still reach one that is about to be killed."""
    for _ in range(100):
        fate: Any = ray.get(worker.fate_of.remote(name))
        if fate != Fate.RUNNING:
            return fate
        time.sleep(0.1)
    return Fate.RUNNING


def test_a_crash_is_told_from_a_kill_that_was_wanted(worker: Any) -> None:
    first, replaces = ray.get(worker.facts.remote())
    assert not replaces and ray.get(worker.fate_of.remote(first)) == Fate.RUNNING
    ray.get(worker.die.remote(first))
    second, replaces = ray.get(worker.facts.remote())
    assert replaces and second != first and judged(worker, first) == Fate.CRASHED
    ray.kill(worker, no_restart=False)
    assert judged(worker, second) == Fate.GONE
    elsewhere = "0" * 56
    assert ray.get(worker.fate_of.remote(f"{elsewhere}_{elsewhere}")) == Fate.UNKNOWN


def test_a_clip_that_kills_its_engine_is_quarantined_and_the_others_are_whole(
    tmp_path: Path, run_job: Callable[..., tuple[int, str]]
) -> None:
    write_video(tmp_path / "in" / "bad.mp4", bad_clip(30, from_frame=12), gop=10)
    clips = make_corpus(tmp_path / "in", (26, 41, 12))
    options: dict[str, Any] = {"segment_frames": 30, "workers": 2}
    code, text = run_job(clips, tmp_path / "out", segmenter=CRASHES, **options)
    assert code == 3 and "engine_crash" in text, text
    rows = {Path(row["uri"]).stem: row for row in open_run(str(tmp_path / "out")).videos().to_pylist()}
    bad = rows.pop("bad")
    assert bad["status"] == "quarantined" and bad["reason"].startswith("engine_crash: ")
    assert {row["status"] for row in rows.values()} == {"ok"}
    run_inline(small_config(clips, tmp_path / "plain", segmenter="plain", **options), 2)
    kept = [row for row in rows_without_package(tmp_path / "out") if row[0] != bad["video_id"]]
    assert kept == [r for r in rows_without_package(tmp_path / "plain") if r[0] != bad["video_id"]]


def test_a_task_of_ray_data_that_takes_its_worker_along_each_time_ends_the_run(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Data would try it for ever; its step callback is not part of Ray's public interface."""
    monkeypatch.setattr(worker_watch, "QUIET_S", 0.0)
    monkeypatch.setattr(worker_watch, "MOST_CRASHES", 2)

    def dies(batch: pa.Table) -> pa.Table:
        os._exit(139)

    with data_context(0.1), pytest.raises(WorkersDie):
        table = ray.data.from_arrow([pa.table({"x": [1]})]).map_batches(dies, batch_format="pyarrow")
        list(table.iter_batches(batch_format="pyarrow"))
