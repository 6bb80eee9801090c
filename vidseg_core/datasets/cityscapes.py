"""`cityscapes:PATH`: Cityscapes as its publisher ships it; labels are the 19 train ids.

Layout: `leftImg8bit/SPLIT/CITY/CITY_SEQ_FRAME_leftImg8bit.png` with
`gtFine/SPLIT/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png` (or `_labelTrainIds.png`, which is taken if it is
there). `snippets=yes` (the default where only `leftImg8bit_sequence` is there) lists the snippets of 30
frames instead, numbered 0 to 29; frame 19, the twentieth, is the annotated one (DVSNet 4.1, FeatureSharing
2.3). `train_extra` with its coarse labels (`gtCoarse`) is a split of that name (ETC IV-A), and no
part of `all`.

A clip is one recorded sequence (`CITY_SEQ`), a snippet's clip carries its annotated frame's number too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from vidseg_core.classes import STREET_CLASSES
from vidseg_core.datasets.listed import SPLIT_ORDER, ImageDataset, Missing
from vidseg_core.datasets.pictures import check_ids, read_ids
from vidseg_core.datasets.places import need_folder
from vidseg_core.datasets.records import IGNORE, DatasetError, Item
from vidseg_core.datasets.spec import DatasetSpec

CITYSCAPES_CLASSES: Mapping[str, int] = dict(
    zip(
        STREET_CLASSES,
        (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
        strict=True,
    )
)
"""Class names in the order of their train ids, each with its label id."""
LABEL_IDS = 34
"""Label ids run from 0 to 33; those that are no class are ignored."""
EXTRA = "train_extra"
SNIPPET_FRAMES = 30
ANNOTATED = 19
"""Place of the annotated frame in a snippet, from 0."""
_NAME = re.compile(
    r"^(?P<city>[^_]+)_(?P<sequence>\d+)_(?P<frame>\d+)_(?P<kind>leftImg8bit|gt(?:Fine|Coarse)_\w+)\.png$"
)
_Place = tuple[str, str, int]
"""City, sequence, frame."""


def train_id_table() -> np.ndarray:
    """uint8[256]: label id -> train id."""
    table = np.full(256, IGNORE, dtype=np.uint8)
    for train_id, label_id in enumerate(CITYSCAPES_CLASSES.values()):
        table[label_id] = train_id
    return table


class Cityscapes(ImageDataset):
    """Annotated frames, or snippets in which one frame is annotated."""

    name = "cityscapes"
    OPTIONS = frozenset(("snippets",))
    APART = frozenset((EXTRA,))

    def __init__(self, spec: DatasetSpec) -> None:
        self.where = spec.path
        self._root = need_folder(spec.path, self.name)
        self._images, self._sequence = self._root / "leftImg8bit", self._root / "leftImg8bit_sequence"
        self._truth, self._coarse = self._root / "gtFine", self._root / "gtCoarse"
        if not self._images.is_dir() and not self._sequence.is_dir():
            raise DatasetError(
                f"cityscapes: {self._root}: found neither leftImg8bit/ nor leftImg8bit_sequence/; "
                "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip there"
            )
        self._snippets = spec.flag("snippets") or not self._images.is_dir()
        if self._snippets and not self._sequence.is_dir():
            raise DatasetError(
                f"cityscapes: {self._root}: snippets=yes needs leftImg8bit_sequence/, which is not there"
            )
        self._table = train_id_table()

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(CITYSCAPES_CLASSES)

    def missing(self) -> Iterator[Missing]:
        if not self._truth.is_dir():
            yield Missing(f"gtFine/ not found: unpack gtFine_trainvaltest.zip in {self._root}", True)
        for split in ("train", "val"):
            if split not in self.splits:
                yield Missing(f"split {split} not found")
        if self._snippets:
            short = sum(1 for frames in self._per_clip().values() if frames != SNIPPET_FRAMES)
            if short:
                yield Missing(f"{short} snippets do not have {SNIPPET_FRAMES} frames")

    def _per_clip(self) -> Mapping[str, int]:
        counts: dict[str, int] = {}
        for item in self.items("all"):
            counts[item.video_id] = counts.get(item.video_id, 0) + 1
        return counts

    def _list(self) -> Mapping[str, Iterable[Item]]:
        root = self._sequence if self._snippets else self._images
        found = [split for split in (*SPLIT_ORDER, EXTRA) if (root / split).is_dir()]
        listing = self._snippet_items if self._snippets else self._frame_items
        return {split: list(listing(split)) for split in found}

    def _frame_items(self, split: str) -> Iterator[Item]:
        labels = self._label_files(split)
        for place, path in _files(self._images / split).items():
            city, sequence, frame = place
            label = labels.get(place)
            yield Item(video_id=f"{city}_{sequence}", frame_index=frame, image=path, label=label)

    def _snippet_items(self, split: str) -> Iterator[Item]:
        frames, labels = _files(self._sequence / split), self._label_files(split)
        annotated = set(labels) | set(_files(self._images / split))
        for city, sequence, middle in sorted(annotated) or _middles(frames):
            for position in range(SNIPPET_FRAMES):
                place = city, sequence, middle - ANNOTATED + position
                if place in frames:
                    label = labels.get(place) if position == ANNOTATED else None
                    clip = f"{city}_{sequence}_{middle:06d}"
                    yield Item(video_id=clip, frame_index=position, image=frames[place], label=label)

    def _label_files(self, split: str) -> dict[_Place, str]:
        if split == EXTRA:
            return _files(self._coarse / split, "gtCoarse_labelIds")
        ids = _files(self._truth / split, "gtFine_labelIds")
        return ids | _files(self._truth / split, "gtFine_labelTrainIds")

    def _labels(self, item: Item) -> np.ndarray:
        assert item.label is not None
        ids_HW = read_ids(item.label)
        if item.label.endswith("_labelTrainIds.png"):
            return check_ids(ids_HW, len(CITYSCAPES_CLASSES), item.label)
        return self._table[check_ids(ids_HW, LABEL_IDS, item.label)]


def _files(folder: Path, kind: str = "leftImg8bit") -> dict[_Place, str]:
    """Files of one kind in the city folders below `folder`, by what their names say."""
    found: dict[_Place, str] = {}
    for path in folder.glob(f"*/*_{kind}.png"):
        if (match := _NAME.match(path.name)) and match["kind"] == kind:
            found[match["city"], match["sequence"], int(match["frame"])] = str(path)
    return found


def _middles(frames: Iterable[_Place]) -> Iterator[_Place]:
    """Where the annotated frames of a sequence are if nothing else says so: unbroken runs are cut in 30s."""
    last: _Place | None = None
    position = 0
    for place in sorted(frames):
        unbroken = last is not None and place[:2] == last[:2] and place[2] == last[2] + 1
        position = (position + 1) % SNIPPET_FRAMES if unbroken else 0
        if position == ANNOTATED:
            yield place
        last = place
