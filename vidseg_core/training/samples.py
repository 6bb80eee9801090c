"""Which sample stands where in training, and how it is read.

Model: sample (step, slot) is item `order.pick(step, slot)`, varied with random numbers `order.random(step,
slot)`. Both are pure functions of (seed, step, slot). With `gap` it brings frames around it (`neighbours`),
drawn with random numbers of their own and varied as it is. With `regions` it is a whole frame of a working
size, in a square that is one size for all, and says whether the net sees it whole. Invariant: whoever reads a
sample, in whatever process and after whatever was killed, reads the same bytes; a resumed run goes on with
the samples that an undisturbed one would have seen.

Shape suffixes: B batch, K neighbours of a frame, H W rows and columns of the crop, 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import AugmentRecipe, LearnedRegionsRecipe
from vidseg_core.config.regions import Crop, RegionsConfig
from vidseg_core.datasets.records import IGNORE, DatasetError, FrameDataset, Item, Record
from vidseg_core.media import working_size
from vidseg_core.training.neighbours import COUNT, draw_neighbours

_ORDER, _VARY, _NEAR, _WHOLE = 1, 2, 3, 4
"""Streams of random numbers that never meet: the order of items, the variation of a sample, its
neighbours, whether it is seen whole."""


class Listed(NamedTuple):
    """An item and the data set that reads it."""

    dataset: FrameDataset
    item: Item
    clip: tuple[Item, ...] = ()
    """The frames of its clip in order, labelled or not, where neighbours are learned with it."""


class Near(NamedTuple):
    """The neighbours of a frame, or of each frame of a batch (then all have a dimension B in front)."""

    frames_K3HW: Any
    """float32 RGB in 0..1."""
    labels_KHW: Any
    """int64 class ids or `IGNORE`, which is all that there is of a frame without labels."""
    found: Any
    """False: the frame has no neighbours, and stands in for them itself."""


class Framed(NamedTuple):
    """Where in a sample its frame is, or in each sample of a batch (then all have a dimension B in front)."""

    size_2: Any
    """int64 rows and columns, from the top left; beyond is nothing (0, and `IGNORE`)."""
    whole: Any
    """True: the net sees the frame whole; False: in regions."""


class Sample(NamedTuple):
    """What is learned from one frame; numpy."""

    frame_3HW: np.ndarray
    """float32."""
    labels_HW: np.ndarray
    """int64."""
    name: tuple[str, int]
    """(video id, frame index)"""
    near: Near | None = None
    framed: Framed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one worker sees in one step."""

    frames_B3HW: torch.Tensor
    """float32 RGB in 0..1."""
    labels_BHW: torch.Tensor
    """int64 class ids or `IGNORE`."""
    ids: tuple[tuple[str, int], ...]
    """(video id, frame index) of each sample, for messages."""
    near: Near | None = None
    """Neighbours: frames_BK3HW, labels_BKHW, found_B; None: frames are learned one by one."""
    framed: Framed | None = None
    """size_B2, whole_B; None: frames are as large as the samples."""

    def to(self, device: torch.device) -> Batch:
        """The same there."""
        return replace(
            self,
            frames_B3HW=self.frames_B3HW.to(device, non_blocking=True),
            labels_BHW=self.labels_BHW.to(device, non_blocking=True),
            near=None if self.near is None else Near(*(part.to(device) for part in self.near)),
        )


@dataclass(frozen=True, kw_only=True)
class SampleOrder:
    """The endless sequence of samples: shuffled epochs of labelled items, pseudo-labelled ones mixed in.

    Each `batch` holds pseudo-labelled items in the share `pseudo_ratio`, to within one sample.
    """

    seed: int
    batch: int
    labelled: int
    """Number of labelled items; at least 1 unless `pseudo_ratio` is 1."""
    pseudo: int = 0
    pseudo_ratio: float = 0.0

    def pick(self, step: int, slot: int) -> tuple[bool, int]:
        """Is it a pseudo-labelled item, and which of its kind."""
        position = step * self.batch + slot
        before = int(position * self.pseudo_ratio)
        if int((position + 1) * self.pseudo_ratio) > before:
            return True, self._shuffled(True, before)
        return False, self._shuffled(False, position - before)

    def random(self, step: int, slot: int) -> np.random.Generator:
        """The random numbers that vary sample (step, slot)."""
        return np.random.default_rng((self.seed, _VARY, step, slot))

    def near(self, step: int, slot: int) -> np.random.Generator:
        """The random numbers that choose the neighbours of sample (step, slot)."""
        return np.random.default_rng((self.seed, _NEAR, step, slot))

    def whole(self, step: int, slot: int, share: float) -> bool:
        """Is sample (step, slot) one of this share?"""
        return bool(np.random.default_rng((self.seed, _WHOLE, step, slot)).random() < share)

    def _shuffled(self, pseudo: bool, position: int) -> int:
        count = self.pseudo if pseudo else self.labelled
        epoch, place = divmod(position, count)
        return int(_permutation((self.seed, _ORDER, int(pseudo), epoch), count)[place])


@lru_cache(maxsize=8)
def _permutation(keys: tuple[int, ...], count: int) -> np.ndarray:
    return np.random.default_rng(keys).permutation(count)


class TrainingSet:
    """Items in the order of training, read and varied on demand."""

    def __init__(
        self,
        order: SampleOrder,
        labelled: Sequence[Listed],
        augment: AugmentRecipe,
        *,
        pseudo: Sequence[Listed] = (),
        size: int = 0,
        gap: int = 0,
        regions: LearnedRegionsRecipe | None = None,
    ) -> None:
        """`size`: longest side to which frames are reduced before they are varied, pixels; 0: as they are.
        `gap`: largest distance to a neighbour, frames; 0: none are drawn. `regions`: frames, which have their
        working size, are learned in regions."""
        if (order.labelled, order.pseudo) != (len(labelled), len(pseudo)):
            raise ValueError("the order counts other items than there are")
        self.order, self.size, self.gap = order, size, gap
        self._augment, self._listed = augment, (labelled, pseudo)
        self._regions = regions if regions is not None and regions.on else None

    @property
    def crop(self) -> int:
        """Side of a sample, pixels."""
        if self._regions is None:
            return self._augment.crop
        largest = 2**14  # frames are never enlarged
        return max(working_size(largest, largest, self._regions.working_size))

    @property
    def in_regions(self) -> bool:
        """Are samples whole frames, learned in regions?"""
        return self._regions is not None

    def sample(self, step: int, slot: int) -> Sample:
        """One sample, with its neighbours if there is a gap."""
        from vidseg_core.training.augment import augment_all

        pseudo, index = self.order.pick(step, slot)
        listed = self._listed[pseudo][index]
        if self._regions is not None:
            return self._frame(listed, step, slot, self._regions)
        records = [self._record(listed)]
        if self.gap:
            records += self._neighbours(listed, records[0], self.order.near(step, slot))
        frames, labels = augment_all(records, self._augment, self.order.random(step, slot), self._another)
        name = (listed.item.video_id, listed.item.frame_index)
        if not self.gap:
            return Sample(frames[0], labels[0], name)
        found = len(records) > 1
        rest = slice(1, None) if found else [0] * COUNT
        near = Near(np.stack(frames)[rest], np.stack(labels)[rest], found)
        return Sample(frames[0], labels[0], name, near)

    def _frame(self, listed: Listed, step: int, slot: int, regions: LearnedRegionsRecipe) -> Sample:
        """A whole frame, varied; `DatasetError` for one that has no such regions."""
        from vidseg_core.training.augment import augment_all

        record = self._record(listed)
        size = (record.frame_HW3.shape[0], record.frame_HW3.shape[1])
        crops_of(record, regions.cut)
        rng = self.order.random(step, slot)
        frames, labels = augment_all([record], self._augment, rng, self._another, size)
        frame_3HW = np.zeros((3, self.crop, self.crop), np.float32)
        labels_HW = np.full((self.crop, self.crop), IGNORE, np.int64)
        frame_3HW[:, : size[0], : size[1]], labels_HW[: size[0], : size[1]] = frames[0], labels[0]
        framed = Framed(np.array(size, np.int64), self.order.whole(step, slot, regions.whole))
        return Sample(frame_3HW, labels_HW, (record.video_id, record.frame_index), framed=framed)

    def _record(self, listed: Listed) -> Record:
        """An item's record as it is learned from: with labels, unless regions are learned without any."""
        if self._regions is None or (self._regions.labels and listed.item.label is not None):
            return resized(labelled_record(listed.dataset, listed.item), self.size)
        return replace(listed.dataset.read(listed.item), labels_HW=None)

    def _neighbours(self, listed: Listed, record: Record, rng: np.random.Generator) -> list[Record]:
        """Records of one size with `record`; labels of frames that count as not labelled are left out."""
        items = draw_neighbours(listed.clip, listed.item.frame_index, self.gap, rng)
        found = [resized(listed.dataset.read(item), self.size) for item in items]
        found = [
            near if item.label is not None else replace(near, labels_HW=None)
            for item, near in zip(items, found, strict=True)
        ]
        for near in found:
            if near.frame_HW3.shape != record.frame_HW3.shape:
                ours, theirs = (f"{r.frame_HW3.shape[1]}x{r.frame_HW3.shape[0]}" for r in (record, near))
                raise DatasetError(
                    f"frames {record.frame_index} and {near.frame_index} of {record.video_id} are {ours} and "
                    f"{theirs}: neighbours must have one size (?size=WxH of the data set gives them one)"
                )
        return found

    def _another(self, rng: np.random.Generator) -> Record:
        """A record drawn at random from all."""
        labelled, pseudo = self._listed
        place = int(rng.integers(len(labelled) + len(pseudo)))
        listed = labelled[place] if place < len(labelled) else pseudo[place - len(labelled)]
        return self._record(listed)

    def batch(self, step: int, slots: Iterable[int]) -> Batch:
        """The given slots of one step."""
        samples = [self.sample(step, slot) for slot in slots]
        nears = [sample.near for sample in samples if sample.near is not None]
        framed = [sample.framed for sample in samples if sample.framed is not None]
        return Batch(
            frames_B3HW=torch.from_numpy(np.stack([sample.frame_3HW for sample in samples])),
            labels_BHW=torch.from_numpy(np.stack([sample.labels_HW for sample in samples])),
            ids=tuple(sample.name for sample in samples),
            near=Near(*map(_stacked, zip(*nears, strict=True))) if nears else None,
            framed=Framed(*map(_stacked, zip(*framed, strict=True))) if framed else None,
        )

    def batches(self, start: int, stop: int, slots: Sequence[int] | None = None) -> Iterator[Batch]:
        """One batch for each step of `start..stop-1`, read in this process; `slots`: all of them by
        default."""
        return (self.batch(step, slots or range(self.order.batch)) for step in range(start, stop))


def _stacked(parts: Sequence[Any]) -> torch.Tensor:
    return torch.from_numpy(np.stack(parts))


def labelled_record(dataset: FrameDataset, item: Item) -> Record:
    """The record of an item that must have labels."""
    record = dataset.read(item)
    if record.labels_HW is None:
        raise DatasetError(f"{item.image}, frame {item.frame_index} of {item.video_id}, has no labels")
    if record.labels_HW.shape != record.frame_HW3.shape[:2]:
        raise DatasetError(
            f"{item.image}, frame {item.frame_index}, is {record.frame_HW3.shape[1]}x"
            f"{record.frame_HW3.shape[0]}, but its labels are {record.labels_HW.shape[1]}x"
            f"{record.labels_HW.shape[0]}"
        )
    return record


def crops_of(record: Record, regions: RegionsConfig) -> tuple[Crop, ...]:
    """The regions of a record's frame; `DatasetError` for one that has no such regions."""
    size = (record.frame_HW3.shape[0], record.frame_HW3.shape[1])
    try:
        regions.check_size(size)
    except ConfigError as problem:
        raise DatasetError(f"frame {record.frame_index} of {record.video_id}: {problem}") from problem
    return regions.crops(size)


def resized(record: Record, size: int) -> Record:
    """The record with its longest side brought down to `size` pixels (area, nearest); never enlarged."""
    rows, columns = record.frame_HW3.shape[:2]
    if not size or max(rows, columns) <= size:
        return record
    scale = size / max(rows, columns)
    target = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    labels_HW = record.labels_HW
    return Record(
        video_id=record.video_id,
        frame_index=record.frame_index,
        frame_HW3=cv2.resize(record.frame_HW3, target, interpolation=cv2.INTER_AREA),
        labels_HW=None
        if labels_HW is None
        else cv2.resize(labels_HW, target, interpolation=cv2.INTER_NEAREST_EXACT),
    )
