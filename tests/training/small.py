"""A training run small enough for tests: two generated clips, a tiny net, a few steps."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pytest
import torch

from vidseg_core.config.recipes import AugmentRecipe, TrainRecipe
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.models.propagation_file import facts_metadata
from vidseg_core.models.trainable import TrainableNet, trainable_net, weights_bytes
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.data import TrainingData, open_training_data
from vidseg_core.training.driver import RunFacts
from vidseg_core.training.loop import LoopOptions, train
from vidseg_core.training.samples import Batch
from vidseg_core.training.segmenter_job import loop_options
from vidseg_core.training.validate import Validation

SCENES = "scenes:videos=3,frames=4,height=64,width=96"
VAL_CLIP = "scene-001-still"
STEPS = 12


class Stopped(Exception):
    """The test pulled the plug."""


def killed_and_resumed(loop: Callable[[Path], Any], folder: Path) -> dict[str, torch.Tensor]:
    """The weights that a run ends with; one that is killed before its fourth step and goes on from a
    checkpoint must end with the same, and with the same curve. `loop`: the run in a folder, from its
    beginning or its checkpoint."""
    whole, broken = loop(folder / "whole"), loop(folder / "broken")
    whole.run()
    step = broken.step

    def dies(number: int) -> None:
        if number == 3:
            raise Stopped
        step(number)

    broken.step = dies
    with pytest.raises(Stopped):
        broken.run()
    again = loop(folder / "broken")
    again.run()
    for name, value in whole.weights().items():
        assert torch.equal(value, again.weights()[name]), name
    assert untimed(again.standing.rows) == untimed(whole.standing.rows)
    return whole.weights()


def untimed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a curve, less what the clock decides."""
    return [{name: row[name] for name in row if name not in ("seconds", "data_share")} for row in rows]


def small_config(output: Path | str, **options: Any) -> TrainSegmenterConfig:
    """Twelve steps of four crops; validation every six, a checkpoint every four."""
    recipe = {"steps": STEPS, "batch": 4, "warmup": 2, "ema": 0.9, "dice": 0.3, "class_balance": 0.5}
    defaults: dict[str, Any] = {
        "data": (SCENES,),
        "val_clips": (VAL_CLIP,),
        "val_every": 6,
        "save_every": 4,
        "log_every": 3,
        "segmenter": "tiny:8",
        "recipe": TrainRecipe(**(recipe | options.pop("recipe", {}))),
        "augment": AugmentRecipe(crop=32, colour=0.5, rotate=10.0, blur=0.3),
        "device": "cpu",
        "max_failures": 2,
    }
    return TrainSegmenterConfig(output=str(output), **(defaults | options))


def small_net(config: TrainSegmenterConfig, data: TrainingData) -> TrainableNet:
    """The net that a worker would build."""
    return trainable_net(config.segmenter, class_names=data.class_names, seed=config.seed)


def train_here(
    config: TrainSegmenterConfig,
    *,
    stop_before: int | None = None,
    poison: int | None = None,
    **options: Any,
) -> Standing:
    """The run of `config` in this process, without Ray.

    `stop_before` raises `Stopped` instead of that step; `poison` gives that step frames of NaN.
    """
    torch.set_num_threads(1)
    Path(config.output).mkdir(parents=True, exist_ok=True)
    data = open_training_data(config)
    training_set = data.training_set(config)

    def batches(start: int) -> Iterator[Batch]:
        for step, batch in enumerate(training_set.batches(start, config.recipe.steps), start):
            if step == stop_before:
                raise Stopped
            if step == poison:
                batch = dataclasses.replace(batch, frames_B3HW=batch.frames_B3HW * float("nan"))
            yield batch

    return train(
        small_net(config, data),
        batches,
        small_options(config, **options),
        validation=Validation(data.validation, len(data.class_names), keep=8),
    )


def small_options(config: TrainSegmenterConfig, **options: Any) -> LoopOptions:
    """The loop's options, without class weights unless given."""
    defaults: dict[str, Any] = {"weights": None, "fingerprint": ""}
    return loop_options(config, **(defaults | options))


def make_folder(
    root: Path, classes: tuple[str, ...] = ("a", "b"), *, clips: int = 2, side: int = 40, id_: int = 1
) -> str:
    """A `folder:` data set of two frames a clip; the spec that names it."""
    for clip in range(clips):
        for frame in range(2):
            for kind, shape in (("images", (side, 48, 3)), ("masks", (side, 48))):
                path = root / kind / f"clip{clip}" / f"{frame:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), np.full(shape, id_ if kind == "masks" else 90, np.uint8))
    (root / "classes.txt").write_text("\n".join(classes) + "\n")
    return f"folder:{root}"


def facts_of(folder: Path | str) -> dict[str, Any]:
    """`run.json`, which has the same fields whatever the verb."""
    facts = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))
    assert set(facts) == {each.name for each in dataclasses.fields(RunFacts)}
    for name, digest in facts["weights_sha256"].items():
        assert digest == hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest()
    return facts


def weights_in(folder: Path | str) -> dict[str, bytes]:
    """What a run left for its user."""
    return {name: (Path(folder) / name).read_bytes() for name in ("best.safetensors", "last.safetensors")}


Net = TypeVar("Net", bound=torch.nn.Module)


def shaken(net: Net) -> Net:
    """Weights that do something, as if trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return net


def written(net: Any, path: Path, name: str = "lvs") -> str:
    """A file of this propagator as train-propagation writes it."""
    weights = {key: value.contiguous() for key, value in net.state_dict().items()}
    path.write_bytes(weights_bytes(weights, ("a", "b"), **facts_metadata(name, net.facts)))
    return str(path)
