"""Promise: a run whose workers Ray's memory monitor kills over and over ends soon, with one sentence that
says what was killed, how full the node is and what to lower; a run that makes progress is never ended for it.

Why: Ray tries such work again for ever ("infinite oom retries") and prints a page each time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.pipeline.clips import make_corpus
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.kit import worker_watch
from vidseg_core.kit.explain import advice, killed
from vidseg_core.kit.worker_watch import (
    MOST_CRASHES,
    MOST_KILLS,
    ShortOfMemory,
    WorkersDie,
    WorkerWatch,
    in_words,
)

MEMORY, CRASH = worker_watch._MEMORY, worker_watch._CRASH
REPO = Path(__file__).parents[2]
CONFIG = SegmentConfig(input=("in",), output="out", segmenter="plain")
RAY_SAYS = [
    """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7,
ID: 70f8) was 22.41GB used / 23.54GB limit (0.952)
Selected to kill: (Task: job ID=01, lease ID=00, task name=decode_units, required resources={CPU: 1})""",
    """Task was killed due to the node running low on memory.
Memory on the node (IP: 10.0.0.7, ID: 70f8) where the task (task ID: 00, name=decode_units, pid=9, memory
used=0.05GB) was running was 22.41GB / 23.54GB (0.952), which exceeds the memory usage threshold of 0.95.""",
]
"""Versions 2.60 and 2.55."""


@pytest.mark.parametrize("text", RAY_SAYS)
def test_a_page_of_rays_is_one_sentence(text: str) -> None:
    told = killed(text, CONFIG)
    assert "a worker (decode_units) on node 10.0.0.7 (22.41 of 23.54 GB are in use there)" in told
    assert "lower --workers, --decoders, --lanes, --shard_frames" in told and "\n" not in told


def test_options_that_a_verb_does_not_have_are_not_named() -> None:
    assert "--lanes" not in advice(SimpleNamespace(workers=2)) and "--workers" in advice(
        SimpleNamespace(workers=2)
    )


class Killing:
    """A cluster on which a worker dies between any two looks, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: int = MEMORY, nodes: int = 1) -> None:
        self.now, self.kind, self.kills = 1000.0, kind, 0
        monkeypatch.setattr(worker_watch, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(worker_watch, "deaths", self.table)
        monkeypatch.setattr(worker_watch.ray, "nodes", lambda: [{"Alive": True}] * nodes)

    def table(self, kind: int) -> dict[str, str]:
        self.kills += kind == self.kind
        return {str(n): RAY_SAYS[0] for n in range(self.kills)} if kind == self.kind else {}

    def looks(self, watch: WorkerWatch, count: int, **progress: bool) -> None:
        """So many looks, five seconds apart."""
        for _ in range(count):
            self.now += 5
            WorkerWatch.progress += bool(progress)
            watch.look()


def test_kills_without_progress_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    killing, watch = Killing(monkeypatch), WorkerWatch()
    killing.looks(watch, MOST_KILLS)
    with pytest.raises(ShortOfMemory, match="task name=decode_units"):
        killing.looks(watch, 5)


def test_crashes_without_progress_end_it_too_but_later(monkeypatch: pytest.MonkeyPatch) -> None:
    killing, watch = Killing(monkeypatch, CRASH), WorkerWatch()
    killing.looks(watch, MOST_CRASHES)
    with pytest.raises(WorkersDie):
        killing.looks(watch, 5)


def test_progress_keeps_a_run_alive_and_so_do_more_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    killing, watch = Killing(monkeypatch), WorkerWatch()
    killing.looks(watch, 100, progress=True)
    killing, watch = Killing(monkeypatch, nodes=10), WorkerWatch()
    killing.looks(watch, 5 * MOST_KILLS)


def test_what_ray_raises_becomes_an_error_of_one_sentence() -> None:
    from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

    class Told(Exception):
        pass

    wrapped = RayTaskError("cell", "a page", ShortOfMemory(RAY_SAYS[0]))
    for problem in (OutOfMemoryError(RAY_SAYS[0]), wrapped):
        with pytest.raises(Told, match=r"ended a worker \(decode_units\)"), in_words(CONFIG, Told):
            raise problem
    with pytest.raises(Told, match="the worker process of a task died"), in_words(CONFIG, Told):
        raise WorkerCrashedError
    with pytest.raises(KeyError), in_words(CONFIG, Told):
        raise KeyError("another")


@pytest.mark.ray
def test_a_machine_that_is_full_ends_a_run_soon_and_in_a_sentence(tmp_path: Path) -> None:
    make_corpus(tmp_path / "in", (20, 20))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jobs.segment",
            "--input",
            tmp_path / "in",
            "--output",
            tmp_path / "out",
            "--segmenter",
            "plain",
            "--scheduler.name",
            "fixed",
            "--executor",
            "ray",
            "--object_store_mb",
            "200",
        ],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO), "RAY_memory_usage_threshold": "0.001"},
        text=True,
        capture_output=True,
        timeout=200,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1, done.stderr
    assert "Ray's memory monitor ended a worker (_plan_table)" in last and "lower --workers" in last
    assert "same command goes on" in last
    shown = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert len(shown) < 40 and max(map(len, shown)) < 600, "Ray's pages are left out"
