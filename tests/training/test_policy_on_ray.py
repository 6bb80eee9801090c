"""Promise: the verb's policy is that of the plain loop, and two workers on Ray Train play the episodes that
one would, also when one of them is killed.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks.generated_tables import generated_table
from tests.training.assassin import killed_worker
from tests.training.local_mode import trained_here
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


def _plain_loop(chosen: TrainPolicyConfig) -> Any:
    """The loop without the verb, in this process."""
    Path(chosen.output).mkdir()
    training, validation = open_tables(chosen.tables, (), chosen.val_share, chosen.seed)
    return train_policy(training, validation, policy_options(chosen))


def command(chosen: TrainPolicyConfig) -> str:
    printed = io.StringIO()
    assert run_train_policy(chosen, Reporter("text", printed)) == 0
    return printed.getvalue()


def test_the_verb_trains_as_the_plain_loop_does(tables: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    _plain_loop(config(tables, tmp_path / "plain"))
    with trained_here():
        printed = command(config(tables, output))
    assert (output / POLICY).read_bytes() == (tmp_path / "plain" / POLICY).read_bytes()
    curve = pq.read_table(output / "curve.parquet").to_pylist()
    assert [row["batch"] for row in curve] == [2, 4, 6, 8]
    assert [row["val_quality"] is None for row in curve] == [True, False, True, False]
    facts = facts_of(output)
    assert (
        facts["unit"] == "batch"
        and facts["steps"] == BATCHES
        and facts["operating_points"][0]["target"] == 8.0
    )
    assert "--scheduler.policy" in printed and "nothing to do" in command(config(tables, output))
    with pytest.raises(FingerprintMismatch, match="seed: 0 there, 1 now"):
        command(config(tables, output, seed=1))


@pytest.mark.ray
def test_two_workers_play_the_same_episodes(tables: str, tmp_path: Path, local_ray: None) -> None:
    rows = _plain_loop(config(tables, tmp_path / "one")).rows
    with killed_worker(tmp_path / "two" / "checkpoint.json", 2):
        command(config(tables, tmp_path / "two", workers=2))
    curve = pq.read_table(tmp_path / "two" / "curve.parquet").to_pylist()
    for one, two in zip(rows, curve, strict=True):
        assert (one["decisions"], one["length"]) == (two["decisions"], two["length"])
        assert one["mean_return"] == pytest.approx(two["mean_return"], rel=1e-4)


@pytest.mark.ray
def test_ctrl_c_says_where_it_goes_on(tables: str, tmp_path: Path, beside_ray: dict[str, str]) -> None:
    """Ray Train's own handler ended the process without a word."""
    output = tmp_path / "out"
    options = f"--tables {tables} --output {output} --episode.frames 40 --episode.eta 0.2 --intervals 8"
    options += " --reinforce.episodes 20000 --reinforce.batch 2 --reinforce.trials 4"
    options += " --save_every 1"
    driver = subprocess.Popen(
        [sys.executable, "-m", "jobs.train_policy", *options.split()],
        cwd=Path(__file__).parents[2],
        env=beside_ray,
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
