"""What a data set holds, for a person: splits, sizes, classes, a few records read on trial.

Model: counts come from the listing, everything about pixels from a sample of frames drawn with a fixed seed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vidseg_core.datasets.listed import Missing
from vidseg_core.datasets.records import ALL, IGNORE, DatasetError, FrameDataset, Item

SAMPLE = 8


@dataclass(frozen=True, kw_only=True)
class SplitCount:
    """How much a split holds."""

    name: str
    clips: int
    frames: int
    labelled: int


@dataclass(kw_only=True)
class Survey:
    """What was found."""

    name: str
    class_names: tuple[str, ...]
    splits: list[SplitCount]
    missing: list[Missing]
    sampled: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(width, height) of the sampled frames."""
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    """int64[256]: labels in the sample."""
    problems: list[str] = field(default_factory=list)
    """Why sampled records could not be read."""

    def shares(self) -> list[tuple[str, float]]:
        """Class (and `ignored`) with its share of the sampled label pixels, where it has any."""
        total = int(self.pixels.sum())
        named = [(name, int(self.pixels[number])) for number, name in enumerate(self.class_names)]
        named.append(("ignored", int(self.pixels[IGNORE])))
        return [(name, count / total) for name, count in named if count]


def survey(dataset: FrameDataset, *, sample: int = SAMPLE, seed: int = 0) -> Survey:
    """Look at all of the listing and at `sample` records. `DatasetError` if nothing can be listed."""
    counts = []
    for split in dataset.splits:
        try:
            counts.append(_count(split, dataset.items(split)))
        except DatasetError:
            counts.append(SplitCount(name=split, clips=0, frames=0, labelled=0))
    missing = getattr(dataset, "missing", None)
    found = Survey(
        name=dataset.name,
        class_names=dataset.class_names,
        splits=counts,
        missing=list(missing()) if missing else [],
    )
    for item in _sample(dataset.items(ALL), sample, seed):
        _look(found, dataset, item)
    return found


def _count(name: str, items: Sequence[Item]) -> SplitCount:
    return SplitCount(
        name=name,
        clips=len({item.video_id for item in items}),
        frames=len(items),
        labelled=sum(item.label is not None for item in items),
    )


def _sample(items: Sequence[Item], sample: int, seed: int) -> list[Item]:
    """Labelled frames if there are any, in listing order."""
    labelled = [number for number, item in enumerate(items) if item.label is not None]
    places = labelled or range(len(items))
    chosen = random.Random(seed).sample(list(places), min(sample, len(places)))
    return [items[number] for number in sorted(chosen)]


def _look(found: Survey, dataset: FrameDataset, item: Item) -> None:
    found.sampled += 1
    try:
        record = dataset.read(item)
    except DatasetError as error:
        found.problems.append(str(error))
        return
    height, width = record.frame_HW3.shape[:2]
    found.sizes[width, height] += 1
    if record.labels_HW is not None:
        found.pixels += np.bincount(record.labels_HW.reshape(-1), minlength=256)
