"""Promise: a checkpoint is whole or the one before it, and nothing in it is ever run.

Why: the disk is full exactly when a long run saves.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from tests.disks import little_room
from tests.training.small import small_config, train_here, weights_in
from vidseg_core.store.atomic import write_whole
from vidseg_core.store.errors import WriteError
from vidseg_core.training.checkpoint import (
    CHECKPOINT,
    CheckpointError,
    Standing,
    load_checkpoint,
    save_checkpoint,
)
from vidseg_core.training.driver import Run, says_how_to_go_on


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    standing = Standing(step=7, seed=3, best=0.25, best_step=5, rows=[{"step": 5}], fingerprint="f")
    save_checkpoint(tmp_path, standing, {"net": {"weight": torch.arange(4.0)}})
    found = load_checkpoint(tmp_path, "f")
    assert found is not None and found[0] == standing
    assert torch.equal(found[1]["net"]["weight"], torch.arange(4.0))
    said = json.loads((tmp_path / "checkpoint.json").read_text())
    assert (said["step"], said["seed"], said["best"]) == (7, 3, 0.25)
    for folder, words in ((tmp_path, "goes on from step 7"), (tmp_path / "empty", "begins again")):
        with (
            pytest.raises(KeyboardInterrupt, match=words),
            says_how_to_go_on(Run(folder=folder, fingerprint="f")),
        ):
            raise KeyboardInterrupt


def test_what_steps_measured_is_kept_as_sums_and_checkpoints_without_them_load(tmp_path: Path) -> None:
    standing = Standing(fingerprint="f")
    for loss in (0.5, 0.25):
        standing.add({"loss": loss})
    assert (standing.measured, standing.measured_steps) == ({"loss": 0.75}, 2)
    save_checkpoint(tmp_path, standing, {})
    found = load_checkpoint(tmp_path, "f")
    assert found is not None and found[0] == standing
    older = json.loads((tmp_path / "checkpoint.json").read_text())
    del older["measured_steps"], older["measured"]
    torch.save({"standing": json.dumps(older)}, tmp_path / CHECKPOINT)
    oldest = load_checkpoint(tmp_path, "f")
    assert oldest is not None and oldest[0] == Standing(fingerprint="f")


def test_a_full_disk_keeps_the_old_checkpoint_whole(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Standing(step=1), {"net": {"weight": torch.zeros(1)}})
    before = (tmp_path / CHECKPOINT).read_bytes()
    with (
        little_room(10_000),
        pytest.raises(WriteError, match=r"cannot write .*checkpoint\.pt: File too large"),
    ):
        save_checkpoint(tmp_path, Standing(step=2), {"net": {"weight": torch.zeros(10_000)}})
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.json", CHECKPOINT]


def test_training_stops_at_a_full_disk_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    train_here(small_config(tmp_path / "plain"))
    config = small_config(tmp_path / "full")
    with little_room(100_000), pytest.raises(WriteError, match="cannot write"):
        train_here(config)
    train_here(config)
    assert weights_in(tmp_path / "full") == weights_in(tmp_path / "plain")


def test_a_folder_that_has_gone_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="nowhere"):
        write_whole(tmp_path / "nowhere" / "file", b"x")


class Trap:
    """A pickle that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path, "")
    torch.save({"standing": Trap(tmp_path / "trapped")}, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path, "")
    assert not (tmp_path / "trapped").exists()


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Standing(step=1), {"net": {"weight": torch.zeros(100)}})
    data = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="remove it to start anew"):
        load_checkpoint(tmp_path, "")
