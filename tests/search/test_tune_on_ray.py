"""Promise: a search whose driver is killed goes on where it stood: trials that had ended are not made
again, and there are as many as were asked for. Afterwards the tables, the picture and a finalist's policy
are there. One that is interrupted says so: Ray Tune ended the search at Ctrl-C as if all were tried.

Both drivers join the Ray of the tests; that one which a driver starts itself ends with it is tried in
`tests.pipeline.test_local_ray`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.tune import main
from vidseg_core.models.policy_file import read_policy

pytestmark = pytest.mark.ray
REPO = Path(__file__).parents[2]
TRIALS = 4


def command(tables: str, space_file: str, output: Path) -> list[str]:
    options = {
        "tables": tables,
        "space": space_file,
        "output": str(output),
        "spaces": "light",
        "trials": TRIALS,
        "episodes": 40,
        "final_episodes": 16,
        "finalists": 1,
        "intervals": 8,
        "concurrent": 1,
        "val_share": 0.4,
    }
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-m", "jobs.tune", *flags]


def outcomes(output: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in output.glob("trials/*/outcome.json")}


def begin(line: list[str], output: Path, done: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A driver that has got to so many trials."""
    driver = subprocess.Popen(
        line,
        cwd=REPO,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 300
    while len(outcomes(output)) < done:
        assert driver.poll() is None, driver.stderr and driver.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return driver


def test_a_killed_driver_goes_on_where_it_stood(
    tables: str, space_file: str, tmp_path: Path, beside_ray: dict[str, str]
) -> None:
    output = tmp_path / "out"
    line = command(tables, space_file, output)
    first = begin(line, output, 1, beside_ray)
    first.kill()
    first.communicate()
    before = outcomes(output)

    second = begin(line, output, len(before) + 1, beside_ray)
    os.killpg(second.pid, signal.SIGINT)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 1 and "Traceback" not in errors
    assert errors.endswith(
        "vidseg tune: interrupted; what was tried stays; the same command goes on from there\n"
    )
    before |= outcomes(output)
    assert 2 <= len(before) < TRIALS and not (output / "run.json").exists()

    assert main(line[line.index("jobs.tune") + 1 :]) == 0
    after = outcomes(output)
    assert len(after) == TRIALS and before.items() <= after.items()

    facts = json.loads((output / "run.json").read_text())
    rows = pq.read_table(output / "trials.parquet").to_pylist()
    best = pq.read_table(output / "pareto.parquet").to_pylist()
    assert facts["trials"] == TRIALS == len(rows)
    assert sum(row["on_front"] for row in rows) == len(best) == facts["on_front"]
    assert (output / "pareto.png").read_bytes().startswith(b"\x89PNG")
    finals = [row for row in best if row["finalist"]]
    assert len(finals) == 1 and finals[0]["final_quality"] > 0
    _, policy = read_policy(output / finals[0]["finalist"] / "policy.safetensors")
    assert policy.operating_points
    assert (output / finals[0]["finalist"] / "curve.png").read_bytes().startswith(b"\x89PNG")
