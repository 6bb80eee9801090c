"""Promise: whatever is killed, and whenever, the run finishes or is continued to the very same table.

Why: spot machines vanish, kernels kill for memory, people press Ctrl-C. After each of these tests the digest
over all rows equals an undisturbed run's, no (video, frame) is missing and none is there twice.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.run_digest import run_digest
from tests.pipeline.clips import make_corpus, moving_disc, write_video
from tests.pipeline.conftest import BOTH, OPTIONS_OF, small_config
from tests.pipeline.inline import rows_without_package, run_inline
from tests.pipeline.slow import SlowPlain
from vidseg_core.media.process import READER_VARIABLE
from vidseg_core.pipeline.segment_job import run_segment

EXECUTOR = pytest.mark.parametrize("executor", BOTH)
LENGTHS = (60, 90)
SLOW = "tests.pipeline.slow:SlowPlain"
REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("clips"), LENGTHS)


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list]:
    output = tmp_path_factory.mktemp("plain") / "out"
    with pytest.MonkeyPatch.context() as at_once:
        at_once.setattr(SlowPlain, "delay_s", 0.0)
        run_inline(small_config(clips, output, segmenter=SLOW), 2)
    return run_digest(output), rows_without_package(output)


@pytest.mark.ray
def test_killed_workers_cost_nothing(
    clips: Path, undisturbed: tuple[str, list], tmp_path: Path, local_ray: None
) -> None:
    """One after another in one run, each once the one before is made good: decoding waits for the engines, so
    there is a decoder until the end."""
    output, codes = tmp_path / "out", []
    config = small_config(clips, output, segmenter=SLOW)
    thread = threading.Thread(target=lambda: codes.append(run_segment(config)))
    thread.start()
    killed: dict[str, int] = {}
    for victim, parts in (("decode process", 0), ("decode worker", 1), ("engine actor", 3)):
        _wait_for_parts(output, parts, thread.is_alive)
        while not killed.get(victim) and thread.is_alive():
            killed[victim] = sum(_killed(process) for process in _victims(victim))
    thread.join(300)
    assert codes == [0]
    assert len(killed) == 3 and all(killed.values()), f"some were not there to be killed: {killed}"
    _same(output, undisturbed)


@pytest.mark.parametrize("victim", ["its child", "its decode process"])
def test_what_does_the_work_of_a_local_run_is_replaced(
    victim: str, clips: Path, undisturbed: tuple[str, list], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    driver = _start(clips, output)
    _wait_for_parts(output, 2, lambda: driver.poll() is None)
    (child,) = psutil.Process(driver.pid).children()
    (decoder,) = child.children()
    (child if victim == "its child" else decoder).kill()
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 0, errors
    assert ("died (SIGKILL); another goes on" in errors) == (victim == "its child"), errors
    assert not child.is_running() and not decoder.is_running()
    _same(output, undisturbed)


def test_a_local_run_whose_command_is_killed_leaves_no_process(clips: Path, tmp_path: Path) -> None:
    driver = _start(clips, tmp_path / "out")
    _wait_for_parts(tmp_path / "out", 1, lambda: driver.poll() is None)
    tree = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.communicate(timeout=60)
    assert len(tree) == 2 and not psutil.wait_procs(tree, timeout=20)[1]


def test_ctrl_c_does_not_wait_for_a_decoder_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(READER_VARIABLE, "tests.pipeline.poison")
    write_video(tmp_path / "in" / "HANG.mp4", moving_disc(60))
    driver = _start(tmp_path / "in", tmp_path / "out", shard_frames=8)
    _wait_for_parts(tmp_path / "out", 1, lambda: driver.poll() is None)
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=25)  # the decoder's deadline is 120 s
    assert driver.returncode == 1 and "same command goes on" in errors and "Traceback" not in errors, errors
    assert not list((tmp_path / "out").rglob("verdict.json")), "it is no fault of the video"


def test_the_whole_tree_killed_again_and_again(
    clips: Path, undisturbed: tuple[str, list], tmp_path: Path
) -> None:
    output, chance = tmp_path / "out", random.Random(7)
    for _ in range(2):
        driver = _start(clips, output)
        _wait_for_parts(output, _parts(output) + chance.randint(1, 5), lambda d=driver: d.poll() is None)
        _kill_tree(driver.pid)
        driver.wait()
    assert _run(clips, output).returncode == 0
    _same(output, undisturbed)


@EXECUTOR
def test_ctrl_c_leaves_a_run_that_says_how_to_go_on(
    executor: str, clips: Path, undisturbed: tuple[str, list], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    driver = _start(clips, output, executor)
    _wait_for_parts(output, 2, lambda: driver.poll() is None)
    os.killpg(driver.pid, signal.SIGINT)  # a terminal sends it to the whole process group
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 1 and "same command goes on" in errors and "Traceback" not in errors, errors
    assert _run(clips, output).returncode == 0
    _same(output, undisturbed)


LONG: dict[str, Any] = {"segmenter": "plain", "segment_frames": 300}


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    """Clips that are not done before a signal is heard, and their rows."""
    clips = make_corpus(tmp_path_factory.mktemp("long"), (600, 500))
    output = tmp_path_factory.mktemp("plain") / "out"
    run_inline(small_config(clips, output, **LONG, shard_frames=8), 2)
    return clips, rows_without_package(output)


@EXECUTOR
def test_sigterm_finishes_what_is_in_flight_and_begins_nothing_more(
    executor: str, long_run: tuple[Path, list], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clips, expected), output = long_run, tmp_path / "out"
    monkeypatch.setenv(READER_VARIABLE, "tests.media.readers:slow")
    driver = _start(clips, output, executor, **LONG)
    _wait_for_parts(output, 2, lambda: driver.poll() is None)
    for _ in range(2):  # as `timeout` does: to the process, and to its group
        os.killpg(driver.pid, signal.SIGTERM)
        time.sleep(0.1)
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 1 and "ended as asked" in errors and "Traceback" not in errors, errors
    assert not list(output.glob("_state/drain-*"))
    rows = rows_without_package(output)
    assert 16 <= len(rows) < len(expected) and set(rows) < set(expected)
    monkeypatch.delenv(READER_VARIABLE)
    assert _run(clips, output, **LONG).returncode == 0
    assert rows_without_package(output) == expected


def test_two_drivers_on_one_output(clips: Path, undisturbed: tuple[str, list], tmp_path: Path) -> None:
    _both_end_well([_start(clips, tmp_path / "out") for _ in range(2)])
    _same(tmp_path / "out", undisturbed)


@pytest.mark.ray
def test_a_local_driver_and_one_on_ray_on_one_output(
    clips: Path, undisturbed: tuple[str, list], tmp_path: Path, beside_ray: dict[str, str]
) -> None:
    output = tmp_path / "out"
    _both_end_well([_start(clips, output), _start(clips, output, "ray", environment=beside_ray)])
    _same(output, undisturbed)


def _both_end_well(drivers: list[subprocess.Popen[str]]) -> None:
    endings = [driver.communicate(timeout=300) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], endings


@pytest.mark.ray
def test_what_one_executor_began_the_other_ends(
    clips: Path, undisturbed: tuple[str, list], tmp_path: Path, local_ray: None
) -> None:
    """The other way round is in every test here that kills a run on Ray."""
    output = tmp_path / "out"
    driver = _start(clips, output)
    _wait_for_parts(output, 3, lambda: driver.poll() is None)
    _kill_tree(driver.pid)
    driver.communicate(timeout=60)
    assert 0 < _parts(output) < sum(LENGTHS) // 8
    assert run_segment(small_config(clips, output, segmenter=SLOW, executor="ray")) == 0
    _same(output, undisturbed)


def _same(output: Path, undisturbed: tuple[str, list]) -> None:
    digest, rows = undisturbed
    assert rows_without_package(output) == rows
    assert run_digest(output) == digest


def _command(clips: Path, output: Path, executor: str, **changed: Any) -> list[str]:
    options: dict[str, Any] = {
        "input": clips,
        "output": output,
        "segmenter": SLOW,
        "scheduler.name": "fixed",
        "scheduler.interval": 7,
        "scheduler.max_interval": 20,
        "propagation.flow_size": 96,
        "segment_frames": 30,
        "shard_frames": 8,
        **OPTIONS_OF[executor],
        **changed,
    }
    pairs = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-m", "jobs.segment", *pairs]


def _start(
    clips: Path,
    output: Path,
    executor: str = "local",
    environment: dict[str, str] | None = None,
    **changed: Any,
) -> subprocess.Popen[str]:
    """`environment`: of a driver that joins a Ray; else one on Ray starts its own."""
    alone = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": str(REPO)}
    return subprocess.Popen(
        _command(clips, output, executor, **changed),
        cwd=REPO,
        env=environment or alone,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_hears_ctrl_c,
    )


def _hears_ctrl_c() -> None:
    """Whoever runs the tests in the background of a shell has SIGINT ignored, and so would we."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run(
    clips: Path, output: Path, executor: str = "local", **changed: Any
) -> subprocess.CompletedProcess[str]:
    driver = _start(clips, output, executor, **changed)
    out, errors = driver.communicate(timeout=300)
    return subprocess.CompletedProcess(driver.args, driver.returncode, out, errors)


def _parts(output: Path) -> int:
    return len(list(output.glob("frames/*/part-*.parquet")))


def _wait_for_parts(output: Path, count: int, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while _parts(output) < count and alive():
        assert time.monotonic() < deadline, "the job makes no parts"
        time.sleep(0.05)


def _victims(kind: str) -> list[psutil.Process]:
    """Engine actors; decode processes; or the Ray workers whose children those are.

    (A process of tests has a decode process of its own.)
    """
    workers = [p for p in psutil.Process().children(recursive=True) if _title(p).startswith("ray::")]
    if kind == "engine actor":
        return [worker for worker in workers if "EngineStage" in _title(worker)]
    decoding = {
        worker: [p for p in _children(worker) if "vidseg_core.media.child" in _title(p)] for worker in workers
    }
    if kind == "decode process":
        return [process for processes in decoding.values() for process in processes]
    return [worker for worker, processes in decoding.items() if processes]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.Error:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _killed(process: psutil.Process) -> bool:
    try:
        process.kill()
        return True
    except psutil.NoSuchProcess:
        return False


def _kill_tree(pid: int) -> None:
    try:
        root = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    for process in [*root.children(recursive=True), root]:
        _killed(process)
