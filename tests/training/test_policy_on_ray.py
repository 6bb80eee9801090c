"""Promise: on Ray Train the policy is that of the plain loop, and a worker that is killed changes no byte."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from benchmarks.generated_tables import generated_table
from tests.training.small import facts_of
from vidseg_core.config.recipes import EpisodeRecipe, ReinforceRecipe
from vidseg_core.config.train_policy import TrainPolicyConfig
from vidseg_core.episodes.store import write_table
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.kit.claim import FingerprintMismatch
from vidseg_core.kit.progress import Reporter
from vidseg_core.store.objects import open_store
from vidseg_core.training.policy_job import policy_options, run_train_policy
from vidseg_core.training.policy_loop import POLICY, train_policy
from vidseg_core.training.split import open_tables

BATCHES = 8


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("episodes")
    for number in range(5):
        write_table(open_store(str(folder)), generated_table(120, 20, seed=number))
    return str(folder)


def config(tables: str, output: Path, **changes: Any) -> TrainPolicyConfig:
    plain: dict[str, Any] = {"intervals": (8.0,), "val_every": 4, "save_every": 1, "log_every": 2}
    return TrainPolicyConfig(
        tables=tables,
        output=str(output),
        episode=EpisodeRecipe(frames=40, eta=0.2),
        reinforce=ReinforceRecipe(episodes=2 * BATCHES, batch=2, trials=4),
        **(plain | changes),
    )


def command(chosen: TrainPolicyConfig) -> str:
    printed = io.StringIO()
    assert run_train_policy(chosen, Reporter("text", printed)) == 0
    return printed.getvalue()


@pytest.mark.ray
def test_a_killed_worker_changes_no_byte(tables: str, tmp_path: Path, local_ray: None) -> None:
    plain = config(tables, tmp_path / "plain")
    (tmp_path / "plain").mkdir()
    training, validation = open_tables(plain.tables, (), plain.val_share, plain.seed)
    train_policy(training, validation, policy_options(plain))
    killed: list[int] = []
    over = threading.Event()
    rough = tmp_path / "rough"
    assassin = threading.Thread(target=kill_worker, args=(rough / "checkpoint.json", 2, killed, over))
    assassin.start()
    printed = command(config(tables, rough))
    over.set()
    assassin.join()
    assert len(killed) == 1, "there was no worker to kill"
    assert (rough / POLICY).read_bytes() == (tmp_path / "plain" / POLICY).read_bytes()
    curve = pq.read_table(rough / "curve.parquet").to_pylist()
    assert [row["batch"] for row in curve] == [2, 4, 6, 8]
    assert [row["val_quality"] is None for row in curve] == [True, False, True, False]
    facts = facts_of(rough)
    assert (
        facts["unit"] == "batch"
        and facts["steps"] == BATCHES
        and facts["operating_points"][0]["target"] == 8.0
    )
    assert "--scheduler.policy" in printed and "nothing to do" in command(config(tables, rough))
    with pytest.raises(FingerprintMismatch, match="seed: 0 there, 1 now"):
        command(config(tables, rough, seed=1))


@pytest.mark.ray
def test_two_workers_play_the_same_episodes(tables: str, tmp_path: Path, local_ray: None) -> None:
    alone = config(tables, tmp_path / "one")
    (tmp_path / "one").mkdir()
    training, validation = open_tables(alone.tables, (), alone.val_share, alone.seed)
    rows = train_policy(training, validation, policy_options(alone)).rows
    command(config(tables, tmp_path / "two", workers=2))
    curve = pq.read_table(tmp_path / "two" / "curve.parquet").to_pylist()
    for one, two in zip(rows, curve, strict=True):
        assert (one["decisions"], one["length"]) == (two["decisions"], two["length"])
        assert one["mean_return"] == pytest.approx(two["mean_return"], rel=1e-4)


@pytest.mark.ray
def test_ctrl_c_says_where_it_goes_on(tables: str, tmp_path: Path) -> None:
    """Ray Train's own handler ended the process without a word."""
    output = tmp_path / "out"
    options = f"--tables {tables} --output {output} --episode.frames 40 --episode.eta 0.2 --intervals 8"
    options += " --reinforce.episodes 20000 --reinforce.batch 2 --reinforce.trials 4"
    options += " --save_every 1 --object_store_mb 128"
    driver = subprocess.Popen(
        [sys.executable, "-m", "jobs.train_policy", *options.split()],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (output / "checkpoint.json").exists():
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGINT)
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 1 and "Traceback" not in errors
    said = errors.splitlines()[-1]
    assert re.fullmatch(r"vidseg train-policy: interrupted; the same command goes on from batch \d+", said)


def kill_worker(checkpoint: Path, step: int, killed: list[int], over: threading.Event) -> None:
    """SIGKILL the process that trains once it has got to `step`."""
    while not over.is_set():
        if checkpoint.is_file() and json.loads(checkpoint.read_text(encoding="utf-8"))["step"] >= step:
            for process in psutil.Process().children(recursive=True):
                if "RayTrainWorker" in " ".join(_command_line(process)):
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.01)


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


# before Ray is started ------------------------------------------------------------------------------------


def test_a_dry_run_trains_nothing(tables: str, tmp_path: Path) -> None:
    printed = command(config(tables, tmp_path / "dry", dry_run=True))
    assert "Nothing was trained" in printed and not (tmp_path / "dry").exists()


def test_what_cannot_be_trained_on_is_told_at_once(tables: str, tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match="no schedule can meet eta 0.02"):
        command(
            TrainPolicyConfig(
                tables=tables, output=str(tmp_path / "x"), episode=EpisodeRecipe(frames=40, eta=0.02)
            )
        )
    with pytest.raises(EpisodeError, match="no episode tables here"):
        command(config(str(tmp_path), tmp_path / "x"))
    with pytest.raises(ValueError, match="there are no tables of clip 'generated-9'"):
        command(config(tables, tmp_path / "x", val_clips=("generated-9",)))
    assert not (tmp_path / "x").exists()
