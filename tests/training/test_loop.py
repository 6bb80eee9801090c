"""Promise: the seed decides the weights, and a run that was stopped goes on to the very same ones.

Why: a checkpoint that forgets the optimiser, the average or the place in the data still trains, and nobody
notices that the result is another one. And a loss that is not a number must never reach a checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.small import (
    SCENES,
    Stopped,
    make_folder,
    small_config,
    train_here,
    untimed,
    weights_in,
)
from vidseg_core.datasets.records import DatasetError
from vidseg_core.models import build_segmenter
from vidseg_core.training.attempt import TrainingError
from vidseg_core.training.checkpoint import CheckpointError, load_checkpoint
from vidseg_core.training.data import open_training_data


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    output = tmp_path_factory.mktemp("plain")
    rows = train_here(small_config(output)).rows
    return weights_in(output), untimed(rows)


@pytest.fixture(scope="module")
def undisturbed(plain: tuple[dict[str, bytes], list[dict[str, Any]]]) -> dict[str, bytes]:
    return plain[0]


def test_equal_seeds_give_equal_bytes_and_others_do_not(
    undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    train_here(small_config(tmp_path / "same"))
    train_here(small_config(tmp_path / "other", seed=1))
    assert weights_in(tmp_path / "same") == undisturbed
    assert weights_in(tmp_path / "other") != undisturbed


@pytest.mark.parametrize("stops", [(2,), (5, 9), (6, 7, 11)])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    stops: tuple[int, ...], plain: tuple[dict[str, bytes], list[dict[str, Any]]], tmp_path: Path
) -> None:
    undisturbed, curve = plain
    config = small_config(tmp_path)
    for stop in stops:
        with pytest.raises(Stopped):
            train_here(config, stop_before=stop)
    outcome = train_here(config)
    assert weights_in(tmp_path) == undisturbed
    assert [row["step"] for row in outcome.rows] == [3, 6, 9, 12]
    assert untimed(outcome.rows) == curve, "a row says what all of its steps measured, whoever ran them"


def test_dropout_and_sgd_resume_too(tmp_path: Path) -> None:
    options = {"segmenter": "smp:PAN/tu-mobilenetv3_small_050", "recipe": {"optimiser": "sgd", "ema": 0.0}}
    train_here(small_config(tmp_path / "plain", **options))
    with pytest.raises(Stopped):
        train_here(small_config(tmp_path / "stopped", **options), stop_before=7)
    train_here(small_config(tmp_path / "stopped", **options))
    assert weights_in(tmp_path / "stopped") == weights_in(tmp_path / "plain")


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    first = train_here(small_config(tmp_path))
    before = weights_in(tmp_path)
    again = train_here(small_config(tmp_path), stop_before=0)
    assert again == first and weights_in(tmp_path) == before


def test_a_loss_that_is_no_number_names_step_and_frames_and_spares_the_checkpoint(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    with pytest.raises(TrainingError, match=r"loss is nan at step 9, .*checkpoint of step 8 is kept") as stop:
        train_here(config, poison=9)
    data = open_training_data(config)
    order = data.training_set(config).order
    for slot in range(4):
        item = data.labelled[order.pick(9, slot)[1]].item
        assert f"{item.video_id} frame {item.frame_index}" in str(stop.value)
    found = load_checkpoint(tmp_path, "")
    assert found is not None and found[0].step == 8
    train_here(config)  # with healthy frames the same run goes on


def test_weights_that_blow_up_never_replace_a_checkpoint(tmp_path: Path) -> None:
    config = small_config(tmp_path, recipe={"lr": 1e30, "warmup": 0, "optimiser": "sgd"}, save_every=1)
    with pytest.raises(TrainingError, match="not finite|loss is"):
        train_here(config)
    found = load_checkpoint(tmp_path, "")
    assert found is None or all(torch.isfinite(value).all() for value in found[1]["net"].values())


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    train_here(small_config(tmp_path), fingerprint="one")
    with pytest.raises(CheckpointError, match="another recipe, data or seed"):
        train_here(small_config(tmp_path), fingerprint="two")


def test_an_unreadable_frame_stops_training_with_its_name(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "data")
    (tmp_path / "data" / "images" / "clip1" / "001.png").write_bytes(b"not a picture")
    config = small_config(tmp_path / "out", data=(spec,), val_clips=())
    with pytest.raises(DatasetError, match=r"\.png"):
        train_here(config)


@pytest.mark.parametrize("segmenter", ["tiny:8", "torchvision:lraspp_mobilenet_v3_large"])
def test_what_is_written_is_what_was_trained(segmenter: str, tmp_path: Path) -> None:
    config = small_config(tmp_path, segmenter=segmenter, recipe={"steps": 2})
    outcome = train_here(config)
    built = build_segmenter(segmenter, weights=str(tmp_path / "best.safetensors"))
    data = open_training_data(config)
    assert built.trained and built.class_names == data.class_names
    from vidseg_core.models.trainable import trainable_net
    from vidseg_core.training.validate import Validation

    net = trainable_net(segmenter, weights=str(tmp_path / "best.safetensors"))
    matrix = Validation(data.validation, len(data.class_names))(net, torch.device("cpu"), 0, 1)
    assert matrix.mean_iou() == pytest.approx(outcome.best)
    frames_B3HW = torch.rand(2, 3, 50, 70)
    with torch.no_grad():
        assert torch.equal(net.eval()(frames_B3HW), built.head(built.features(frames_B3HW)))


def test_the_net_learns_something(tmp_path: Path) -> None:
    config = small_config(
        tmp_path, data=(f"{SCENES}?size=64",), recipe={"steps": 30, "lr": 1e-2}, log_every=5, val_every=30
    )
    rows = train_here(config).rows
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
