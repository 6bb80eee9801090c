"""Generated tables on disk, and a space file for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.generated_tables import generated_table
from vidseg_core.episodes.store import write_table
from vidseg_core.store.objects import open_store

SPACES = """
light:
  verb: train-policy
  fixed: {episode.frames: 40, reinforce.trials: 4, reinforce.batch: 2}
  vary:
    episode.eta: {float: [0.1, 0.4], scale: log}
    reinforce.credit: {choice: [return, to_go]}
    tau: {float: [0.1, 0.9]}
fixed:
  fixed: {scheduler.name: fixed}
  vary:
    scheduler.interval: {int: [2, 20], scale: log}
"""


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("episodes")
    for number in range(5):
        write_table(open_store(str(folder)), generated_table(120, 20, seed=number))
    return str(folder)


@pytest.fixture(scope="session")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(SPACES, encoding="utf-8")
    return str(path)
