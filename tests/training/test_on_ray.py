"""Promise: on Ray the weights are those of the plain loop, and a worker that is killed changes nothing.

Why: Ray hands samples out in tasks and replaces whole groups of workers; either could change the order of
samples or lose a step, and the loss curve would look as good as ever.
"""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.training.assassin import killed_worker
from tests.training.small import STEPS, Stopped, facts_of, make_folder, small_config, train_here, weights_in
from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.config.recipes import TemporalRecipe
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.kit.claim import FingerprintMismatch
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.trainable import trainable_net, weights_bytes, weights_of
from vidseg_core.training.data import open_training_data
from vidseg_core.training.driver import open_run
from vidseg_core.training.segmenter_job import run_train_segmenter

pytestmark = pytest.mark.ray
FLAT = {"class_balance": 0.0}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the loop makes without Ray."""
    output = tmp_path_factory.mktemp("plain")
    train_here(small_config(output, recipe=FLAT))
    return weights_in(output)


def command(config: TrainSegmenterConfig) -> str:
    """Run the verb on the session's Ray; what it printed."""
    text = io.StringIO()
    assert run_train_segmenter(config, Reporter("text", text)) == 0
    return text.getvalue()


def test_two_workers_with_a_lost_one_end_as_two_undisturbed_ones(tmp_path: Path, local_ray: None) -> None:
    """With neighbours, a teacher and a ConvLSTM that is trained along: all that a checkpoint can forget."""
    names = tuple(SCENE_CLASSES)
    teacher, weights = (
        tmp_path / "teacher.safetensors",
        weights_of(trainable_net("tiny:8", class_names=names)),
    )
    teacher.write_bytes(weights_bytes(weights, names))
    taught = {"temporal": TemporalRecipe(gap=1), "teacher": "tiny:8", "teacher_weights": str(teacher)}
    options = {"workers": 2, "save_every": 1, "recipe": {"steps": 6}, **taught}
    command(small_config(tmp_path / "calm", **options))
    with killed_worker(tmp_path / "rough" / "checkpoint.json", 2):
        command(small_config(tmp_path / "rough", **options))
    assert weights_in(tmp_path / "rough") == weights_in(tmp_path / "calm")
    curve = pq.read_table(tmp_path / "rough" / "curve.parquet").to_pylist()
    assert all(curve[-1][f"loss_{name}"] > 0 for name in ("temporal", "single", "pair", "multi"))


def test_a_stopped_command_goes_on_and_another_one_is_refused(
    plain: dict[str, bytes], tmp_path: Path, local_ray: None
) -> None:
    config = small_config(tmp_path, recipe=FLAT)
    fields = config.fingerprint_fields() | {"data": open_training_data(config).digest(), "weights": None}
    run = open_run(tmp_path, fields)
    with pytest.raises(Stopped):  # as if the first command had been killed after its checkpoint of step 8
        train_here(config, stop_before=10, fingerprint=run.fingerprint)
    printed = command(config)
    assert "going on from step 8" in printed
    assert "best val_miou" in printed and f"step {STEPS}/{STEPS}" in printed
    assert weights_in(tmp_path) == plain
    _the_run_is_described(tmp_path)
    assert "complete already" in command(config)
    with pytest.raises(FingerprintMismatch, match=r"recipe\.lr: 0\.003 there, 0\.1 now"):
        command(small_config(tmp_path, recipe=FLAT | {"lr": 0.1}))


def _the_run_is_described(output: Path) -> None:
    curve = pq.read_table(output / "curve.parquet").to_pylist()
    assert [row["step"] for row in curve] == [3, 6, 9, 12]
    assert [row["val_miou"] is not None for row in curve] == [False, True, False, True]
    facts = facts_of(output)
    assert facts["steps"] == STEPS and facts["measure"] == "val_miou" and facts["best_step"] in (6, 12)
    assert facts["details"]["frames"] == {"labelled": 8, "pseudo": 0, "validation": 4}
    assert (output / "curve.png").exists()


def test_what_can_be_explained_is_said_once_and_not_tried_again(tmp_path: Path, local_ray: None) -> None:
    spec = make_folder(tmp_path / "data", id_=7)
    config = small_config(tmp_path / "out", data=(spec,), val_clips=(), recipe=FLAT)
    with pytest.raises(DatasetError, match=r"masks/clip\d/00\d\.png"):
        command(config)
    assert not (tmp_path / "out" / "run.json").exists()
