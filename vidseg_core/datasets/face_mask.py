"""`300vw-mask:PATH`: the cropped faces and masks of 300VW-Mask, which DVRL 4.1 trains on.

Layout, as its authors describe it (github.com/mapleandfire/300VW-Mask): `images_orig/VVV_FFFFFF.jpg` and
`labels_orig/VVV_FFFFFF.png` for frame FFFFFF, counted from 1, of video VVV; `data_splits/split_2/{A,B,C}.txt`
(DVRL's three parts: train, val and test here) and `data_splits/split_1/{train,val,test}_per10.txt`; each line
names an image and its label. `lists=split_1` chooses the other lists, `lists=none` takes every file as train.

Assumed, since the description leaves it open: label pixels are class ids 0 to 4, or the colours that the
authors' script draws. Crops differ in size from frame to frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from vidseg_core.classes import FACE_CLASSES
from vidseg_core.datasets.listed import ImageDataset, Missing
from vidseg_core.datasets.pictures import check_ids, read_stored
from vidseg_core.datasets.places import need_folder
from vidseg_core.datasets.records import DatasetError, Item
from vidseg_core.datasets.spec import DatasetSpec

LISTS: Mapping[str, Mapping[str, str]] = {
    "split_2": {"train": "A.txt", "val": "B.txt", "test": "C.txt"},
    "split_1": {"train": "train_per10.txt", "val": "val_per10.txt", "test": "test_per10.txt"},
    "none": {},
}
COLOURS: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0),
    (255, 0, 0),
    (0, 255, 0),
    (0, 255, 255),
    (0, 0, 255),
)
"""Colours of the masks, in the order of `FACE_CLASSES`."""
_NAME = re.compile(r"^(?P<video>[^_]+)_(?P<frame>\d+)$")


class FaceMask300VW(ImageDataset):
    """Cropped faces with masks."""

    name = "300vw-mask"
    OPTIONS = frozenset(("lists",))

    def __init__(self, spec: DatasetSpec) -> None:
        self.where = spec.path
        root = need_folder(spec.path, self.name)
        if not (root / "images_orig").is_dir() and (root / "300VW-Mask-Dataset").is_dir():
            root = root / "300VW-Mask-Dataset"
        self._root = root
        need_folder(root / "images_orig", self.name, "unpack 300VW-Mask-Dataset.zip there")
        self._lists = spec.option("lists", "split_2")
        if self._lists not in LISTS:
            raise DatasetError(f"{self.name}: lists={self._lists}: must be one of {', '.join(LISTS)}")

    @property
    def class_names(self) -> tuple[str, ...]:
        return FACE_CLASSES

    def _list_files(self) -> dict[str, Path]:
        folder = self._root / "data_splits" / self._lists
        names = LISTS[self._lists].items()
        return {split: folder / name for split, name in names if (folder / name).is_file()}

    def missing(self) -> Iterator[Missing]:
        if not (self._root / "labels_orig").is_dir():
            yield Missing(f"labels_orig/ not found in {self._root}: the masks", True)
        if self._lists != "none" and not self._list_files():
            where = self._root / "data_splits" / self._lists
            yield Missing(f"no lists in {where}: everything counts as train")

    def _list(self) -> Mapping[str, Iterable[Item]]:
        if lists := self._list_files():
            return {split: list(self._listed_items(path)) for split, path in lists.items()}
        images = (self._root / "images_orig").glob("*.jpg")
        return {
            "train": [self._item(path, self._root / "labels_orig" / f"{path.stem}.png") for path in images]
        }

    def _listed_items(self, path: Path) -> Iterator[Item]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            words = line.split()
            if not words:
                continue
            if len(words) != 2:
                raise DatasetError(f"{path}: line {number}: expected an image and a label, got {line!r}")
            image, label = (self._root / word.lstrip("/") for word in words)
            yield self._item(image, label)

    def _item(self, image: Path, label: Path) -> Item:
        name = _NAME.match(image.stem)
        if name is None:
            raise DatasetError(f"{image}: expected a name like 001_000001: video, underscore, frame from 1")
        there = (self._root / "labels_orig").is_dir()
        return Item(
            video_id=name["video"],
            frame_index=int(name["frame"]) - 1,
            image=str(image),
            label=str(label) if there else None,
        )

    def _labels(self, item: Item) -> np.ndarray:
        assert item.label is not None
        stored = read_stored(item.label)
        if stored.ndim == 2:
            return check_ids(stored, len(FACE_CLASSES), item.label)
        ids_HW = np.full(stored.shape[:2], len(FACE_CLASSES), dtype=np.uint8)
        for number, colour in enumerate(COLOURS):
            ids_HW[(stored == colour).all(axis=2)] = number
        if (ids_HW == len(FACE_CLASSES)).any():
            raise DatasetError(f"{item.label}: a colour is none of the five of the face classes")
        return ids_HW
