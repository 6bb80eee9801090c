"""What a training run learns from and is measured on: data sets opened, compared and divided.

Invariant: no frame of a validation clip is trained on, and all data sets mean the same by class id i.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vidseg_core.config.errors import ConfigError, nearest
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import ALL, IGNORE, DatasetError, FrameDataset
from vidseg_core.training.samples import Listed, SampleOrder, TrainingSet, labelled_record

COUNTED = 256
"""Frames that class frequencies are counted on."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Frames by their use, each with the data set that reads it."""

    class_names: tuple[str, ...]
    labelled: tuple[Listed, ...]
    pseudo: tuple[Listed, ...]
    validation: tuple[Listed, ...]

    def digest(self) -> str:
        """SHA-256 over classes and the names of all frames: places may move."""
        text = hashlib.sha256(repr(self.class_names).encode())
        for listed in (self.labelled, self.pseudo, self.validation):
            text.update(b"\n\n")
            for dataset, item in listed:
                text.update(f"{dataset.name}\0{item.video_id}\0{item.frame_index}\n".encode())
        return text.hexdigest()

    def training_set(self, config: TrainSegmenterConfig) -> TrainingSet:
        """The samples of the run in their order."""
        order = SampleOrder(
            seed=config.seed,
            batch=config.recipe.batch,
            labelled=len(self.labelled),
            pseudo=len(self.pseudo),
            pseudo_ratio=config.share(),
        )
        return TrainingSet(order, self.labelled, config.augment, pseudo=self.pseudo)

    def class_pixels(self, share: float) -> np.ndarray:
        """Pixels of each class, int64 (C,), on evenly spread frames; pseudo-labelled ones by their share."""
        pseudo = round(COUNTED * share)
        chosen = [*spread(self.pseudo, pseudo), *spread(self.labelled, COUNTED - pseudo)]
        pixels_C = np.zeros(len(self.class_names), dtype=np.int64)
        for dataset, item in chosen:
            labels_HW = labelled_record(dataset, item).labels_HW
            assert labels_HW is not None
            counts = np.bincount(labels_HW[labels_HW != IGNORE], minlength=len(pixels_C))
            pixels_C += counts[: len(pixels_C)]
        return pixels_C


def open_training_data(config: TrainSegmenterConfig) -> TrainingData:
    """Open all that `config` names. `DatasetError` or `ConfigError` for what is empty, or does not go
    together."""
    labelled = [(text, open_dataset(text)) for text in config.data]
    pseudo = [(text, open_dataset(text)) for text in config.pseudo]
    validating = [(text, open_dataset(text)) for text in config.val]
    names = _same_classes([*labelled, *pseudo, *validating])
    validation = _validation(config, labelled, validating)
    held_out = set(config.val_clips)
    if not config.val:
        held_out |= {item.video_id for _, item in validation}
    train = [listed for text, dataset in labelled for listed in _labelled(text, dataset, config.split)]
    extra = [listed for text, dataset in pseudo for listed in _labelled(text, dataset, ALL)]
    data = TrainingData(
        class_names=names,
        labelled=tuple(listed for listed in train if listed.item.video_id not in held_out),
        pseudo=tuple(listed for listed in extra if listed.item.video_id not in held_out),
        validation=tuple(spread(validation, config.val_limit or len(validation))),
    )
    for option, texts, left in (
        ("--data", config.data, data.labelled),
        ("--pseudo", config.pseudo, data.pseudo),
    ):
        if texts and not left:
            raise ConfigError(option, f"{', '.join(texts)}: nothing is left to train on beside validation")
    return data


def _validation(
    config: TrainSegmenterConfig,
    labelled: Sequence[tuple[str, FrameDataset]],
    validating: Sequence[tuple[str, FrameDataset]],
) -> list[Listed]:
    if config.val_clips:
        known = [listed for text, dataset in labelled for listed in _labelled(text, dataset, ALL)]
        clips = sorted({listed.item.video_id for listed in known})
        for clip in config.val_clips:
            if clip not in clips:
                hint = nearest(clip, clips) or f"; there are: {', '.join(clips[:8])}"
                raise ConfigError("--val_clips", f"--data has no labelled clip {clip!r}{hint}")
        return [listed for listed in known if listed.item.video_id in config.val_clips]
    if validating:
        splits = [(text, dataset, "val" if "val" in dataset.splits else ALL) for text, dataset in validating]
    else:
        splits = [(text, dataset, "val") for text, dataset in labelled if "val" in dataset.splits]
    return [listed for text, dataset, split in splits for listed in _labelled(text, dataset, split)]


def _labelled(text: str, dataset: FrameDataset, split: str) -> Iterator[Listed]:
    """The labelled frames of a split, of which there must be some."""
    items = [item for item in dataset.items(split) if item.label is not None]
    if not items:
        raise DatasetError(f"{text}: split {split!r} has no labelled frame")
    return (Listed(dataset, item) for item in items)


def _same_classes(opened: Sequence[tuple[str, FrameDataset]]) -> tuple[str, ...]:
    first_text, first = opened[0]
    if not first.class_names:
        raise DatasetError(f"{first_text}: has no labels to train on")
    for text, dataset in opened[1:]:
        ours, theirs = tuple(first.class_names), tuple(dataset.class_names)
        if ours == theirs:
            continue
        lacks = [name for name in ours if name not in theirs]
        more = [name for name in theirs if name not in ours]
        how = f"lacks {', '.join(map(repr, lacks))}" if lacks else "has them in another order"
        how += f", has {', '.join(map(repr, more))} besides" if more else ""
        raise DatasetError(
            f"{text}: its classes are not those of {first_text}: it {how}; "
            "bring them together with ?remap=FILE.yaml"
        )
    return tuple(first.class_names)


def spread(listed: Sequence[Listed], count: int) -> list[Listed]:
    """At most `count` of them, evenly spread."""
    if len(listed) <= count:
        return list(listed)
    return [listed[number * len(listed) // count] for number in range(count)]
