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
from vidseg_core.config.words import count
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import ALL, IGNORE, DatasetError, FrameDataset
from vidseg_core.datasets.regions import regions_of
from vidseg_core.datasets.wrapped import ResizedDataset
from vidseg_core.training.neighbours import MOST_APART, clips_of, has_neighbours, is_still
from vidseg_core.training.samples import Listed, SampleOrder, TrainingSet, labelled_record

LOOKED_AT = 32
"""Clips whose first frames are read to see how large they are."""
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
        """SHA-256 over classes and the names of all frames, neighbours included: places may move."""
        text = hashlib.sha256(repr(self.class_names).encode())
        for kind in (self.labelled, self.pseudo, self.validation):
            text.update(b"\n\n")
            for listed in kind:
                item = listed.item
                text.update(f"{listed.dataset.name}\0{item.video_id}\0{item.frame_index}\n".encode())
        for clip in {id(listed.clip): listed.clip for listed in (*self.labelled, *self.pseudo)}.values():
            text.update("".join(f"{near.video_id}\0{near.frame_index}\n" for near in clip).encode())
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
        gap = config.temporal.gap
        return TrainingSet(
            order, self.labelled, config.augment, pseudo=self.pseudo, gap=gap, regions=config.regions
        )

    def sizes(self) -> set[tuple[int, int]]:
        """(H, W) of the first frame of each clip to learn from and to validate on, of many clips of some."""
        chosen: list[Listed] = []
        for listed in ((*self.labelled, *self.pseudo), self.validation):
            first = {each.item.video_id: each for each in reversed(listed)}
            chosen += spread(list(first.values()), LOOKED_AT)
        shapes = (listed.dataset.read(listed.item).frame_HW3.shape for listed in chosen)
        return {(shape[0], shape[1]) for shape in shapes}

    def with_neighbours(self, gap: int) -> int:
        """How many training frames have a neighbour at most `gap` frames away."""
        listed = (*self.labelled, *self.pseudo)
        return sum(has_neighbours(each.clip, each.item.frame_index, gap) for each in listed)

    def has_stills(self, gap: int) -> bool:
        """Is there a training frame that frames at most `gap` away are too far from? They were its neighbours
        once."""
        listed = (*self.labelled, *self.pseudo)
        return any(is_still(each.clip, each.item.frame_index, gap) for each in listed)

    def class_pixels(self, share: float) -> np.ndarray:
        """Pixels of each class, int64 (C,), on evenly spread frames; pseudo-labelled ones by their share."""
        pseudo = round(COUNTED * share)
        made, drawn = (
            [listed for listed in kind if listed.item.label is not None]
            for kind in (self.pseudo, self.labelled)
        )
        chosen = [*spread(made, pseudo), *spread(drawn, COUNTED - pseudo)]
        pixels_C = np.zeros(len(self.class_names), dtype=np.int64)
        for listed in chosen:
            labels_HW = labelled_record(listed.dataset, listed.item).labels_HW
            assert labels_HW is not None
            counts = np.bincount(labels_HW[labels_HW != IGNORE], minlength=len(pixels_C))
            pixels_C += counts[: len(pixels_C)]
        return pixels_C


def open_training_data(config: TrainSegmenterConfig) -> TrainingData:
    """Open all that `config` names. `DatasetError` or `ConfigError` for what is empty, or does not go
    together. Without a class name where no label is asked for: they are the net's."""
    opened = {text: _opened(text, config) for text in (*config.data, *config.pseudo, *config.val)}
    labelled, pseudo, validating = (
        [(text, opened[text]) for text in texts] for texts in (config.data, config.pseudo, config.val)
    )
    names = _same_classes([*labelled, *pseudo, *validating]) if config.uses_labels else ()
    validation = _validation(config, labelled, validating)
    if validation and not names:
        names = _same_classes([(text, opened[text]) for text in opened if _is_read(opened[text], validation)])
    held_out = set(config.val_clips)
    if not config.val:
        held_out |= {listed.item.video_id for listed in validation}
    clips, every = config.temporal.gap > 0, config.regions.on
    train = [
        each for text, dataset in labelled for each in _frames(text, dataset, config.split, clips, every)
    ]
    extra = [each for text, dataset in pseudo for each in _frames(text, dataset, ALL, clips, every)]
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
    if config.temporal.gap:
        check_gap(config, data)
    return data


def _opened(text: str, config: TrainSegmenterConfig) -> FrameDataset:
    """The data set; with frames of the working size where regions of those are learned."""
    dataset = open_dataset(text)
    if not config.regions.on:
        return dataset
    if regions_of(dataset).on:
        problem = f"{text}: its clips are regions already; with --regions.grid give whole frames"
        raise ConfigError("--regions.grid", problem)
    return ResizedDataset(dataset, config.regions.working_size)


def _is_read(dataset: FrameDataset, listed: Sequence[Listed]) -> bool:
    return any(each.dataset is dataset for each in listed)


def check_gap(config: TrainSegmenterConfig, data: TrainingData) -> None:
    """`ConfigError` where the gap is longer than a clip, or no frame has a neighbour."""
    gap, listed = config.temporal.gap, (*data.labelled, *data.pseudo)
    if not data.with_neighbours(gap):
        near = min(filter(None, map(_nearest, listed)), default=0)
        within = count(min(gap, MOST_APART), "frame")
        raise ConfigError(
            "--temporal.gap", f"no training frame has another one within {within}; {_apart(near)}"
        )
    for each in listed:
        length = each.clip[-1].frame_index - each.clip[0].frame_index + 1
        if 1 < len(each.clip) and length <= gap:
            name, most = each.item.video_id, length - 1
            problem = f"clip {name} has {length} frames, too few for a gap of {gap}; give at most {most}"
            raise ConfigError("--temporal.gap", f"{problem}, or leave the clip out (?clips=)")


def _apart(near: int) -> str:
    """What to do where the nearest frames are so far apart; 0: there are none."""
    if not near:
        return "each is alone in its clip: they are stills"
    if near <= MOST_APART:
        return f"the nearest are {near} apart: give {near} or more"
    return f"the nearest are {near} apart: they are stills"


def _nearest(listed: Listed) -> int:
    """Frames from the frame to the nearest other one of its clip; 0 if there is none."""
    apart = (abs(item.frame_index - listed.item.frame_index) for item in listed.clip)
    return min((distance for distance in apart if distance), default=0)


def _validation(
    config: TrainSegmenterConfig,
    labelled: Sequence[tuple[str, FrameDataset]],
    validating: Sequence[tuple[str, FrameDataset]],
) -> list[Listed]:
    if config.val_clips:
        known = [listed for text, dataset in labelled for listed in _frames(text, dataset, ALL)]
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
    return [listed for text, dataset, split in splits for listed in _frames(text, dataset, split)]


def _frames(
    text: str, dataset: FrameDataset, split: str, clips: bool = False, every: bool = False
) -> Iterator[Listed]:
    """The labelled frames of a split (or `every` one), of which there must be some; with `clips`, each with
    its clip."""
    known = dataset.items(split)
    items = [item for item in known if every or item.label is not None]
    if not items:
        raise DatasetError(f"{text}: split {split!r} has no labelled frame")
    clip_of = clips_of(known) if clips else {}
    return (Listed(dataset, item, clip_of.get(item.video_id, ())) for item in items)


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
