"""Promise: what cannot be trained on is refused before anything starts, in one sentence that names it.

Why: a class that means something else in the second data set, or a validation clip that is trained on, gives
a fine curve and a worthless net.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.training.small import SCENES, VAL_CLIP, make_folder, small_config, train_here
from vidseg_core.cli.main import main
from vidseg_core.config.cli import parse
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.training.data import open_training_data
from vidseg_core.training.loss import balance_weights


def config_for(tmp_path: Path, *data: str, **options: Any) -> TrainSegmenterConfig:
    return small_config(tmp_path / "out", data=data, **({"val_clips": ()} | options))


def test_validation_clips_are_left_out_of_training(tmp_path: Path) -> None:
    data = open_training_data(small_config(tmp_path))
    assert {listed.item.video_id for listed in data.validation} == {VAL_CLIP}
    assert len(data.labelled) == 8 and VAL_CLIP not in {listed.item.video_id for listed in data.labelled}


def test_a_val_split_is_used_where_there_is_one_and_needs_no_option(tmp_path: Path) -> None:
    data = open_training_data(config_for(tmp_path, f"{SCENES}?val_clips={VAL_CLIP}"))
    assert len(data.validation) == 4 and len(data.labelled) == 8
    held = open_training_data(config_for(tmp_path, f"{SCENES}?val_clips={VAL_CLIP}", split="all"))
    assert len(held.labelled) == 8


def test_other_data_may_validate_and_the_number_of_frames_may_be_limited(tmp_path: Path) -> None:
    other = SCENES + ",seed=9"
    data = open_training_data(config_for(tmp_path, SCENES, val=(other,), val_limit=5))
    assert len(data.validation) == 5 and len(data.labelled) == 12


def test_pseudo_labels_are_mixed_in(tmp_path: Path) -> None:
    config = config_for(tmp_path, SCENES, pseudo=(SCENES + ",seed=9",), pseudo_ratio=0.25)
    data = open_training_data(config)
    order = data.training_set(config).order
    assert (len(data.labelled), len(data.pseudo)) == (12, 12)
    assert sum(order.pick(step, slot)[0] for step in range(10) for slot in range(4)) == 10
    assert open_training_data(config_for(tmp_path, pseudo=(SCENES,))).labelled == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "trian"}, "did you mean 'train'"),
        ({"val_clips": ("scene-001-stil",)}, "did you mean 'scene-001-still'"),
        ({"val_clips": ("scene-000-mixed", VAL_CLIP, "scene-002-fast")}, "nothing is left to train on"),
        ({"data": ("scenez:videos=2",)}, "did you mean 'scenes'"),
    ],
)
def test_names_that_do_not_exist_and_empty_splits_are_named(
    options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, DatasetError), match=says):
        open_training_data(small_config(tmp_path, **options))


def test_frames_without_any_label_are_an_empty_split(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "data")
    for mask in (tmp_path / "data" / "masks").rglob("*.png"):
        mask.unlink()
    with pytest.raises(DatasetError, match="no labelled frame"):
        open_training_data(config_for(tmp_path, spec))


def test_data_sets_must_mean_the_same_classes(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one", ("road", "car"))
    two = make_folder(tmp_path / "two", ("road", "cat"))
    turned = make_folder(tmp_path / "turned", ("car", "road"))
    with pytest.raises(DatasetError, match=r"two.*lacks 'car', has 'cat' besides.*remap"):
        open_training_data(config_for(tmp_path, one, two))
    with pytest.raises(DatasetError, match="another order"):
        open_training_data(config_for(tmp_path, one, turned))


def test_labels_out_of_range_stop_training_with_the_file(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "data", ("a", "b"), id_=7)
    with pytest.raises(DatasetError, match=r"masks/clip\d/00\d\.png"):
        train_here(config_for(tmp_path, spec))


def test_frames_and_labels_of_other_sizes_stop_training_with_the_file(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "data")
    for mask in (tmp_path / "data" / "masks").rglob("*.png"):
        cv2.imwrite(str(mask), np.zeros((20, 20), np.uint8))
    with pytest.raises(DatasetError, match=r"00\d\.png.*20x20|20x20.*00\d\.png"):
        train_here(config_for(tmp_path, spec))


def test_rare_classes_weigh_more_and_the_mean_pixel_weighs_one() -> None:
    pixels_C = np.array([900, 90, 10, 0])
    assert balance_weights(pixels_C, 0.0) is None
    weights_C = balance_weights(pixels_C, 1.0)
    assert weights_C is not None and weights_C[3] == 1.0
    assert weights_C[2] == pytest.approx(90 * weights_C[0])
    assert (weights_C * pixels_C).sum() == pytest.approx(pixels_C.sum())


def test_a_dumped_configuration_is_a_recipe_file_and_steps_may_be_typed(tmp_path: Path) -> None:
    config = small_config(tmp_path / "out", recipe={"steps": 77})
    (tmp_path / "recipe.yaml").write_text(config.to_yaml())
    argv = ["--config", str(tmp_path / "recipe.yaml")]
    assert parse("train-segmenter", TrainSegmenterConfig, argv) == config
    typed = parse("train-segmenter", TrainSegmenterConfig, [*argv, "--steps", "5"])
    assert typed == small_config(tmp_path / "out", recipe={"steps": 5})


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--output", "x"], "--data"),
        (["--data", SCENES], "--output"),
        (["--data", SCENES, "--output", "x", "--recipe.batch", "4", "--workers", "3"], "--workers"),
        (["--data", SCENES, "--output", "x", "--augment.crop", "8"], "--augment.crop"),
        (["--data", SCENES, "--output", "x", "--recipe.ema", "1"], "--recipe.ema"),
        (["--data", SCENES, "--output", "s3://b/x"], "--output"),
        (["--data", "nowhere/at/all", "--output", "x"], "nowhere/at/all"),
        (["--data", SCENES, "--output", "x", "--segmenter", "constant"], "cannot be trained"),
        (["--data", SCENES, "--output", "x", "--segmenter", "smp:Unet/resnet19"], "resnet1"),
    ],
)
def test_bad_usage_ends_with_2_and_one_sentence(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["train-segmenter", *argv])
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2 and says in printed.err and "Traceback" not in printed.err


def test_a_single_sample_for_a_batch_norm_of_one_pixel_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data", SCENES, "--output", str(tmp_path / "out"), "--segmenter", "smp:DeepLabV3Plus/resnet18"]
    assert main(["train-segmenter", *argv, "--recipe.batch", "2", "--workers", "2", "--dry-run"]) == 2
    printed = capsys.readouterr().err
    assert "--recipe.batch: gives a worker one sample" in printed and "give 4 for 2 workers" in printed
    assert not (tmp_path / "out").exists()


def test_a_single_sample_is_enough_for_a_net_without_such_a_norm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data", SCENES, "--output", str(tmp_path / "out"), "--segmenter", "tiny:8", "--dry-run"]
    assert main(["train-segmenter", *argv, "--recipe.batch", "1", "--augment.crop", "64"]) == 0
    assert main(["train-segmenter", *argv, "--recipe.batch", "1", "--augment.crop", "32"]) == 2
    assert "give 2 for 1 worker" in capsys.readouterr().err


def test_weights_of_another_architecture_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here(small_config(tmp_path / "small", recipe={"steps": 1}))
    weights = str(tmp_path / "small" / "last.safetensors")
    argv = [
        "--data",
        SCENES,
        "--output",
        str(tmp_path / "out"),
        "--weights",
        weights,
        "--segmenter",
        "tiny:16",
    ]
    assert main(["train-segmenter", *argv]) == 2
    assert "does not fit tiny:16" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_counts_times_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data", SCENES, "--val_clips", VAL_CLIP, "--output", str(tmp_path / "out"), "--dry-run"]
    small = ["--segmenter", "tiny:8", "--augment.crop", "32", "--steps", "100", "--device", "cpu"]
    assert main(["train-segmenter", *argv, *small]) == 0
    printed = capsys.readouterr().err
    assert "8 labelled frames; validation: 4 frames; 100 steps" in printed and "about 0:" in printed
    assert not (tmp_path / "out").exists()
