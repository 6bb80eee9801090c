"""`vspw:PATH`: VSPW as its publisher ships it, or at 480p; its 124 classes.

Layout: `data/CLIP/origin/NNNNNNNN.jpg` (15 frames a second), `data/CLIP/mask/NNNNNNNN.png`, lists of clips
`train.txt`, `val.txt`, `test.txt` (the masks of the last are not published), and `label_num_dic_final.json`,
which names the 124 classes. Masks hold 1 to 124; 0, 254 and 255 are no class and ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from vidseg_core.datasets.listed import SPLIT_ORDER, ImageDataset, Missing
from vidseg_core.datasets.pictures import IMAGE_SUFFIXES, read_ids
from vidseg_core.datasets.places import need_folder
from vidseg_core.datasets.records import IGNORE, DatasetError, Item
from vidseg_core.datasets.spec import DatasetSpec

CLASSES = 124
NAMES = "label_num_dic_final.json"
NO_CLASS = (0, 254, 255)


class Vspw(ImageDataset):
    """Clips in which every frame is labelled, but for those of the test split."""

    name = "vspw"

    def __init__(self, spec: DatasetSpec) -> None:
        self.where = spec.path
        self._root = need_folder(spec.path, self.name)
        need_folder(self._root / "data", self.name, "unpack VSPW_data.tar or VSPW_480p.tar there")
        self._table = np.full(256, CLASSES, np.uint8)
        self._table[1 : CLASSES + 1] = np.arange(CLASSES)
        self._table[list(NO_CLASS)] = IGNORE

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._names

    @cached_property
    def _names(self) -> tuple[str, ...]:
        path = self._root / NAMES
        if not path.is_file():
            return tuple(f"class_{number}" for number in range(1, CLASSES + 1))
        try:
            named = {
                int(number): str(name)
                for name, number in json.loads(path.read_text(encoding="utf-8")).items()
            }
            return tuple(named[number] for number in range(1, CLASSES + 1))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            problem = f"does not name the classes 1 to {CLASSES} ({error!r})"
            raise DatasetError(f"{self.name}: {path}: {problem}") from error

    def missing(self) -> Iterator[Missing]:
        if not (self._root / NAMES).is_file():
            yield Missing(f"{NAMES} not found in {self._root}: classes are called class_1 to class_{CLASSES}")
        if not self._lists():
            yield Missing(f"no train.txt, val.txt, test.txt in {self._root}: everything counts as train")
        for split, names in self._lists().items():
            if absent := [name for name in names if not self._pictures(name).is_dir()]:
                yield Missing(f"{len(absent)} clips of {split} not found, e.g. {absent[0]}")

    def _lists(self) -> dict[str, list[str]]:
        found = {split: self._root / f"{split}.txt" for split in SPLIT_ORDER}
        return {
            split: path.read_text(encoding="utf-8").split() for split, path in found.items() if path.is_file()
        }

    def _list(self) -> Mapping[str, Iterable[Item]]:
        data = self._root / "data"
        clips = self._lists() or {"train": [path.name for path in data.iterdir() if path.is_dir()]}
        return {
            split: [
                item for name in names if self._pictures(name).is_dir() for item in self._items(data / name)
            ]
            for split, names in clips.items()
        }

    def _pictures(self, clip: str) -> Path:
        """Where a clip's pictures are; a clip without that folder is not there."""
        return self._root / "data" / clip / "origin"

    def _items(self, clip: Path) -> Iterator[Item]:
        for path in self._pictures(clip.name).iterdir():
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if not path.stem.isdigit():
                raise DatasetError(f"vspw: {path}: expected a frame number as name, like 00000001")
            label = clip / "mask" / f"{path.stem}.png"
            yield Item(
                video_id=clip.name,
                frame_index=int(path.stem),
                image=str(path),
                label=str(label) if label.is_file() else None,
            )

    def _labels(self, item: Item) -> np.ndarray:
        assert item.label is not None
        stored_HW = read_ids(item.label)
        ids_HW = self._table[stored_HW]
        if (ids_HW == CLASSES).any():
            odd = int(stored_HW[ids_HW == CLASSES][0])
            raise DatasetError(f"{item.label}: {odd} is no class of VSPW's; they are 1 to {CLASSES}")
        return ids_HW
