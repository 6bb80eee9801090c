"""Promise: a node that vanishes in the middle of a run and another that joins change no row.

Why: that is a spot market on an ordinary day. Three raylets on this machine stand for three machines; one is
killed with everything on it (its decoders, its engine, its share of the object store).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.clips import make_corpus
from tests.pipeline.conftest import small_config
from tests.pipeline.inline import rows_without_package, run_inline
from vidseg_core.store.run import open_run

pytestmark = pytest.mark.ray
REPO = Path(__file__).parents[2]


def test_a_node_dies_and_another_joins(tmp_path: Path) -> None:
    clips = make_corpus(tmp_path / "in", (150, 120, 90))
    run_inline(small_config(clips, tmp_path / "plain", segmenter="plain"), 2)
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.three_nodes", str(clips), str(tmp_path / "out")],
        cwd=REPO,
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"killed after (\d+) parts, joined after (\d+)", done.stdout)
    assert found is not None and int(found[1]) < 48, done.stdout
    assert rows_without_package(tmp_path / "out") == rows_without_package(tmp_path / "plain")
    assert open_run(tmp_path / "out").complete
