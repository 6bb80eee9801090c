"""`folder:PATH`: frames and masks that anybody has: `images/` and `masks/` with equal stems.

Layout: `images/a.jpg` and `masks/a.png`, or a folder for each clip below both (`images/clip1/000001.jpg`);
one level higher there may be `train`, `val` and `test`. `classes.txt` names the classes, one a line; without
it they are counted from the masks. Masks are index images; 255 is ignored. Masks that hold 0 and 255 alone
are an error: most likely 255 is the class that matters. A frame without a mask is unlabelled, a mask without
a frame is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml

from vidseg_core.datasets.listed import SPLIT_ORDER, ImageDataset, Missing
from vidseg_core.datasets.pictures import IMAGE_SUFFIXES, read_ids
from vidseg_core.datasets.places import need_folder, read_class_list
from vidseg_core.datasets.records import IGNORE, DatasetError, Item
from vidseg_core.datasets.spec import DatasetSpec

_NUMBER = re.compile(r"(\d+)(?!.*\d)")


class FolderDataset(ImageDataset):
    """Images and masks with equal stems."""

    name = "folder"

    def __init__(self, spec: DatasetSpec) -> None:
        self.where = spec.path
        self._root = need_folder(spec.path, "folder")
        self._parts = {part: self._root / part for part in SPLIT_ORDER if (self._root / part).is_dir()}
        if (self._root / "images").is_dir() or not self._parts:
            self._parts = {"train": self._root}
        self._is_mapped = bool(spec.option("remap"))
        for part in self._parts.values():
            need_folder(part / "images", "folder", "expected images/ and masks/ with equal file names")

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        if names := read_class_list(self._root / "classes.txt"):
            return names
        return tuple(f"class{number}" for number in range(self._highest_id() + 1))

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        if not self._is_mapped:  # the map may speak of 255
            self.check_values()
        return self._classes

    def _highest_id(self) -> int:
        """The highest id in all masks: without `classes.txt` nothing else says how many classes there are."""
        highest = -1
        for path in self._masks():
            ids = read_ids(path).astype(np.int16)
            highest = max(highest, int(ids[ids != IGNORE].max(initial=-1)))
        return highest

    def _masks(self) -> Iterator[Path]:
        for part in self._parts.values():
            yield from _files(part / "masks").values()

    def check_values(self) -> None:
        """`DatasetError` if the masks hold 0 and 255 alone: reads until one holds something else."""
        ignored = False
        for path in self._masks():
            try:
                there = np.bincount(read_ids(path).reshape(-1), minlength=256)
            except DatasetError:  # is said when the frame is read
                return
            if there[1:IGNORE].any():
                return
            ignored |= bool(there[IGNORE])
        if ignored:
            names = self._classes or ("class0",)
            raise DatasetError(
                f"{self._root}: its masks hold 0 and 255 only, and 255 is ignored: only {names[0]} is left; "
                f"if 255 is a class, give ?remap=FILE.yaml with the lines {_binary_map(names)}"
            )

    def missing(self) -> Iterator[Missing]:
        for part in self._parts.values():
            if not (part / "masks").is_dir():
                yield Missing(f"masks/ not found in {part}: the labels", True)
        if not (self._root / "classes.txt").is_file():
            yield Missing(f"no classes.txt in {self._root}: classes have no names, their number is a guess")

    def _list(self) -> Mapping[str, Iterable[Item]]:
        return {split: list(_items(part)) for split, part in self._parts.items()}


def _binary_map(names: tuple[str, ...]) -> str:
    """The two lines of a class map for masks of 0 and 255."""
    first = "background" if names == ("class0",) else names[0]
    classes = [first, *(names[1:] or ("foreground",))]
    old_to_new = dict(zip(names, classes, strict=False)) | {IGNORE: classes[1]}
    lines = ({"classes": classes}, {"map": old_to_new})
    said = (yaml.safe_dump(line, default_flow_style=None, sort_keys=False, width=10_000) for line in lines)
    return " and ".join(text.strip() for text in said)


def _items(part: Path) -> Iterable[Item]:
    images, masks = _files(part / "images"), _files(part / "masks")
    for stem in sorted(set(masks) - set(images)):
        raise DatasetError(f"{masks[stem]}: there is no image {part / 'images' / stem} to this mask")
    clips: dict[str, list[str]] = {}
    for stem in images:
        clips.setdefault(stem.rpartition("/")[0], []).append(stem)
    for clip, stems in clips.items():
        for number, stem in _numbered(stems):
            mask = masks.get(stem)
            yield Item(
                video_id=clip or part.name,
                frame_index=number,
                image=str(images[stem]),
                label=str(mask) if mask else None,
            )


def _files(folder: Path) -> dict[str, Path]:
    """Image files below `folder` by their path without suffix; `DatasetError` for one stem twice."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                raise DatasetError(f"{path}: the same frame as {found[stem].name}; keep one of them")
            found[stem] = path
    return found


def _numbered(stems: list[str]) -> list[tuple[int, str]]:
    """Frame numbers of a clip: the last number in each name if that tells them apart, else their order."""
    numbers = [int(found[1]) if (found := _NUMBER.search(stem.rpartition("/")[2])) else -1 for stem in stems]
    if -1 in numbers or len(set(numbers)) != len(numbers):
        return list(enumerate(sorted(stems)))
    return sorted(zip(numbers, stems, strict=True))
