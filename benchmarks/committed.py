"""Training by a committed recipe, for the benchmarks: frames in memory, one process, one file of weights.

Model: a recipe is a YAML file in `vidseg_core/training/recipes` that `vidseg train-segmenter --config` reads
too; here its `segmenter`, `seed`, `recipe` and `augment` count. Invariant: equal recipe and frames give equal
weights on one kind of machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from vidseg_core.config.recipes import AugmentRecipe, TrainRecipe
from vidseg_core.datasets.records import Item, Record
from vidseg_core.metrics import ConfusionMatrix
from vidseg_core.models import Segmenter, build_segmenter, labels_from_scores
from vidseg_core.models.trainable import trainable_net
from vidseg_core.training.loop import LoopOptions, train
from vidseg_core.training.loss import balance_weights
from vidseg_core.training.samples import Listed, SampleOrder, TrainingSet


@dataclass(frozen=True, kw_only=True)
class Committed:
    """A recipe as the package has it, with what a benchmark's options change."""

    segmenter: str
    seed: int
    recipe: TrainRecipe
    augment: AugmentRecipe
    extra: dict[str, Any]
    """Whatever else the file says."""

    def with_steps(self, steps: int | None) -> Committed:
        """The same, with another number of steps."""
        return replace(self, recipe=replace(self.recipe, steps=steps)) if steps else self


def committed(name: str) -> Committed:
    """The recipe `name`.yaml of the package."""
    text = files("vidseg_core.training").joinpath("recipes", f"{name}.yaml").read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    return Committed(
        segmenter=tree.pop("segmenter"),
        seed=tree.pop("seed"),
        recipe=TrainRecipe(**tree.pop("recipe")),
        augment=AugmentRecipe(**tree.pop("augment")),
        extra=tree,
    )


class Memory:
    """A data set of records that are already read."""

    name, splits = "memory", ("train",)

    def __init__(self, records: Sequence[Record], class_names: Sequence[str]) -> None:
        self.class_names, self._records = tuple(class_names), list(records)

    def items(self, split: str) -> list[Item]:
        return [
            Item(video_id=record.video_id, frame_index=record.frame_index, image=str(place))
            for place, record in enumerate(self._records)
        ]

    def read(self, item: Item) -> Record:
        return self._records[int(item.image)]


def fit(what: Committed, records: Sequence[Record], class_names: Sequence[str], folder: Path) -> Path:
    """Train from nothing; the weights file (in `folder`, which a killed run goes on from)."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = Memory(records, class_names)
    listed = [Listed(dataset, item) for item in dataset.items("train")]
    order = SampleOrder(seed=what.seed, batch=what.recipe.batch, labelled=len(listed))
    data = TrainingSet(order, listed, what.augment)
    weights_C = balance_weights(_pixels(records, len(class_names)), what.recipe.class_balance)
    options = LoopOptions(
        recipe=what.recipe,
        folder=folder,
        seed=what.seed,
        fingerprint=_fingerprint(what, records),
        val_every=what.recipe.steps,
        log_every=100,
        class_weights=None if weights_C is None else tuple(weights_C.astype(np.float32).tolist()),
    )
    net = trainable_net(what.segmenter, class_names=class_names, seed=what.seed)
    train(net, lambda start: data.batches(start, what.recipe.steps), options, watch=_say)
    return folder / "last.safetensors"


def _fingerprint(what: Committed, records: Sequence[Record]) -> str:
    """So that a folder with another recipe's or other frames' checkpoint is refused."""
    total = hashlib.sha256(repr(what).encode())
    for record in records:
        total.update(f"{record.video_id} {record.frame_index} {record.frame_HW3.shape}\n".encode())
    return total.hexdigest()


def _pixels(records: Sequence[Record], classes: int) -> np.ndarray:
    counts = [
        np.bincount(record.labels_HW.ravel(), minlength=256)[:classes]
        for record in records
        if record.labels_HW is not None
    ]
    return np.sum(counts, axis=0)


def _say(row: Any) -> None:
    step, loss, seconds = row["step"], row["loss"], row["seconds"]
    print(f"  step {step:5d}  loss {loss:.3f}  {seconds:5.0f} s  data {row['data_share']:.0%}", flush=True)


@torch.no_grad()
def predict(segmenter: Segmenter, frame_HW3: np.ndarray) -> np.ndarray:
    """uint8 labels_HW of one frame."""
    frames_13HW = torch.from_numpy(np.ascontiguousarray(frame_HW3)).permute(2, 0, 1)[None].float() / 255.0
    scores = segmenter.head(segmenter.features(frames_13HW))
    return labels_from_scores(scores)[0].numpy().astype(np.uint8)


def measure(segmenter: Segmenter, records: Sequence[Record], classes: int) -> ConfusionMatrix:
    """Counts over all records; pixels labelled `IGNORE` are left out."""
    matrix = ConfusionMatrix(classes)
    for record in records:
        assert record.labels_HW is not None
        matrix.update(predict(segmenter, record.frame_HW3), record.labels_HW)
    return matrix


def trained(what: Committed, weights: Path) -> Segmenter:
    """The segmenter with the weights that `fit` wrote."""
    return build_segmenter(what.segmenter, weights=str(weights))
