"""Data sets seen otherwise: other splits, other sizes. Each wraps one and passes on what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import cv2

from vidseg_core.config.errors import nearest
from vidseg_core.datasets.listed import Missing
from vidseg_core.datasets.records import ALL, DatasetError, FrameDataset, Item, Record, motion_of
from vidseg_core.media import Motion, working_size


class WrappedDataset:
    """Everything as `inner` has it."""

    def __init__(self, inner: FrameDataset) -> None:
        self.inner = inner
        self.name = inner.name

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.inner.class_names

    @property
    def splits(self) -> tuple[str, ...]:
        return self.inner.splits

    def items(self, split: str) -> Sequence[Item]:
        return self.inner.items(split)

    def read(self, item: Item) -> Record:
        return self.inner.read(item)

    def motion(self, item: Item) -> Motion | None:
        return motion_of(self.inner, item)

    def missing(self) -> Iterable[Missing]:
        missing = getattr(self.inner, "missing", None)
        return missing() if missing else ()


class ResizedDataset(WrappedDataset):
    """Frames scaled down (area average) with their labels (nearest), as `--working_size` counts sizes."""

    def __init__(self, inner: FrameDataset, size: str) -> None:
        super().__init__(inner)
        self._size = size
        try:
            working_size(64, 64, size)
        except ValueError as error:
            raise DatasetError(f"size={size}: {error}") from error

    def read(self, item: Item) -> Record:
        record = self.inner.read(item)
        height, width = record.frame_HW3.shape[:2]
        rows, columns = working_size(width, height, self._size)
        if (rows, columns) != (height, width):
            record.frame_HW3 = cv2.resize(record.frame_HW3, (columns, rows), interpolation=cv2.INTER_AREA)
            if record.labels_HW is not None:
                nearest_pixel = cv2.INTER_NEAREST_EXACT
                record.labels_HW = cv2.resize(record.labels_HW, (columns, rows), interpolation=nearest_pixel)
        return record


class ClipsDataset(WrappedDataset):
    """Some clips only (`clips`), or `val` made of whole clips and `train` of the others (`val_clips`).

    Clips are named by id or by a pattern like `scene-00[67]*`.
    """

    def __init__(self, inner: FrameDataset, *, clips: Sequence[str], val_clips: Sequence[str]) -> None:
        super().__init__(inner)
        self._clips, self._val_clips = tuple(clips), tuple(val_clips)

    @cached_property
    def _by_split(self) -> dict[str, tuple[Item, ...]]:
        known = list(dict.fromkeys(item.video_id for item in self.inner.items(ALL)))
        for pattern in (*self._clips, *self._val_clips):
            if not any(fnmatchcase(clip, pattern) for clip in known):
                listed = ", ".join(known[:12])
                raise DatasetError(
                    f"{self.name}: no clip {pattern}{nearest(pattern, known)}; known: {listed}"
                )
        kept = {clip for clip in known if not self._clips or _matches(clip, self._clips)}
        if not self._val_clips:
            names = self.inner.splits
            return {name: tuple(i for i in self._inner_items(name) if i.video_id in kept) for name in names}
        held = {clip for clip in kept if _matches(clip, self._val_clips)}
        items = [item for item in self.inner.items(ALL) if item.video_id in kept]
        return {
            "train": tuple(item for item in items if item.video_id not in held),
            "val": tuple(item for item in items if item.video_id in held),
            ALL: tuple(items),
        }

    def _inner_items(self, split: str) -> Sequence[Item]:
        try:
            return self.inner.items(split)
        except DatasetError:
            return ()

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._by_split)

    def items(self, split: str) -> Sequence[Item]:
        if split not in self._by_split:
            known = ", ".join(self.splits)
            raise DatasetError(
                f"{self.name}: no split {split!r}{nearest(split, self.splits)}; there are: {known}"
            )
        if not self._by_split[split]:
            raise DatasetError(f"{self.name}: split {split!r} is empty")
        return self._by_split[split]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_by_split"}


class ThinnedLabels(WrappedDataset):
    """Of each clip's labelled frames every so many keep their labels, the first one too (ETC IV-D)."""

    def __init__(self, inner: FrameDataset, every: str) -> None:
        super().__init__(inner)
        if not every.isdigit() or int(every) < 1:
            raise DatasetError(f"labels_every={every}: must be a whole number from 1 up")
        self._every = int(every)
        self._listed: dict[str, tuple[Item, ...]] = {}

    def items(self, split: str) -> Sequence[Item]:
        if split not in self._listed:
            self._listed[split] = tuple(self._thinned(self.inner.items(split)))
        return self._listed[split]

    def _thinned(self, items: Sequence[Item]) -> Iterable[Item]:
        seen: dict[str, int] = {}
        for item in items:
            number = seen.get(item.video_id, 0)
            seen[item.video_id] = number + (item.label is not None)
            yield item if number % self._every == 0 else replace(item, label=None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_listed": {}}


def _matches(clip: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(clip, pattern) for pattern in patterns)
