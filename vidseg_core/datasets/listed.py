"""What the data sets share: named splits of items that are listed once, and how image files are read.

Model: a data set lists its clips by split (`_list`) on the first question and forgets the listing when it is
pickled: a worker that only reads needs none. Invariant: `items` are sorted by (video_id, frame_index), and
`all` holds every item of every split once, but for splits that a data set keeps apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from vidseg_core.config.errors import nearest
from vidseg_core.datasets.pictures import check_ids, check_sizes, read_ids, read_rgb
from vidseg_core.datasets.records import ALL, DatasetError, Item, Record

SPLIT_ORDER = ("train", "val", "test")


class Missing(NamedTuple):
    """Something that a data set should hold and does not."""

    text: str
    essential: bool = False
    """Without it the data set is of no use for training."""


class ListedDataset(ABC):
    """A `FrameDataset` whose files are listed on first use."""

    name: str
    where: str
    """What the data set was opened with, for messages."""
    OPTIONS: ClassVar[frozenset[str]] = frozenset()
    """Options of this layout's own."""
    APART: ClassVar[frozenset[str]] = frozenset()
    """Splits that are no part of `all`."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]: ...

    @abstractmethod
    def _list(self) -> Mapping[str, Iterable[Item]]:
        """Items by split, in any order; without splits of its own, all of them as `train`."""

    @abstractmethod
    def read(self, item: Item) -> Record: ...

    def missing(self) -> Iterable[Missing]:
        """What the layout should hold and does not; for `vidseg doctor`."""
        return ()

    @cached_property
    def _by_split(self) -> dict[str, tuple[Item, ...]]:
        listed = {split: ordered(items) for split, items in self._list().items()}
        known = [name for name in SPLIT_ORDER if name in listed]
        listed = {name: listed[name] for name in [*known, *sorted(set(listed) - set(known))]}
        listed[ALL] = ordered(
            _once({name: items for name, items in listed.items() if name not in self.APART})
        )
        return listed

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._by_split)

    def items(self, split: str) -> Sequence[Item]:
        """All frames of a split; `DatasetError` if there is no such split, or nothing in it."""
        if split not in self._by_split:
            hint = nearest(split, self.splits)
            known = ", ".join(self.splits)
            raise DatasetError(f"{self.name}: {self.where}: no split {split!r}{hint}; there are: {known}")
        if not self._by_split[split]:
            raise DatasetError(f"{self.name}: {self.where}: split {split!r} is empty")
        return self._by_split[split]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_by_split"}


class ImageDataset(ListedDataset):
    """Frames and labels are image files; `_labels` knows what the label files hold."""

    def read(self, item: Item) -> Record:
        frame_HW3 = read_rgb(item.image)
        labels_HW = None
        if item.label is not None:
            labels_HW = self._labels(item)
            check_sizes(frame_HW3, labels_HW, item.image, item.label)
        return Record(
            video_id=item.video_id,
            frame_index=item.frame_index,
            frame_HW3=frame_HW3,
            labels_HW=labels_HW,
        )

    def _labels(self, item: Item) -> np.ndarray:
        """uint8 labels_HW of `item.label`: here, an index image with our own ids."""
        assert item.label is not None
        return check_ids(read_ids(item.label), len(self.class_names), item.label)


def ordered(items: Iterable[Item]) -> tuple[Item, ...]:
    """Sorted by clip and frame."""
    return tuple(sorted(items, key=item_key))


def item_key(item: Item) -> tuple[str, int, str]:
    return item.video_id, item.frame_index, item.image


def _once(listed: Mapping[str, Sequence[Item]]) -> Iterable[Item]:
    return {item_key(item): item for items in listed.values() for item in items}.values()
