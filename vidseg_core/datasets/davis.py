"""`davis:PATH`: DAVIS-2016 and DAVIS-2017 as foreground and background.

Layout: `JPEGImages/RES/SEQUENCE/NNNNN.jpg`, `Annotations/RES/SEQUENCE/NNNNN.png` (RES: `480p`, or what
`resolution=` says) and `ImageSets/YEAR/SPLIT.txt` (YEAR: 2017, else 2016, else the `480p` of the first
release; `year=` chooses). Or flat: `SEQUENCE/frames/NNNNN.*` and `SEQUENCE/labels/NNNNN.png`.

Objects are no classes: any object (palette index or gray above 0) is `foreground`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from vidseg_core.config.errors import nearest
from vidseg_core.datasets.listed import ImageDataset, Missing
from vidseg_core.datasets.pictures import IMAGE_SUFFIXES, read_stored
from vidseg_core.datasets.places import need_folder
from vidseg_core.datasets.records import DatasetError, Item
from vidseg_core.datasets.spec import DatasetSpec

DAVIS_CLASSES = ("background", "foreground")
YEARS = ("2017", "2016", "480p")
RESOLUTIONS = ("480p", "Full-Resolution", "1080p")


class Davis(ImageDataset):
    """Sequences in which every frame is labelled."""

    name = "davis"
    OPTIONS = frozenset(("resolution", "year"))

    def __init__(self, spec: DatasetSpec) -> None:
        self.where = spec.path
        self._root = root = need_folder(spec.path, self.name)
        self._flat = not (root / "JPEGImages").is_dir()
        self._year = _choice(root / "ImageSets", YEARS, spec.option("year"), "year", needed=False)
        if self._flat:
            self._sequences = _flat_sequences(root)
            return
        size = spec.option("resolution")
        chosen = _choice(root / "JPEGImages", RESOLUTIONS, size, "resolution", needed=True)
        frames, labels = root / "JPEGImages" / chosen, root / "Annotations" / chosen
        self._annotations = labels
        self._sequences = {
            path.name: (path, labels / path.name) for path in sorted(frames.iterdir()) if path.is_dir()
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        return DAVIS_CLASSES

    def missing(self) -> Iterator[Missing]:
        if not self._flat and not self._annotations.is_dir():
            yield Missing(f"{self._annotations} not found: the labels", True)
        if not self._flat and not self._year:
            yield Missing(f"no lists in {self._root / 'ImageSets'}: everything counts as train")
        for split, names in self._lists().items():
            if absent := [name for name in names if name not in self._sequences]:
                yield Missing(f"{len(absent)} sequences of {split} not found, e.g. {absent[0]}")

    def _list(self) -> Mapping[str, Iterable[Item]]:
        lists = self._lists() or {"train": list(self._sequences)}
        return {
            split: [item for name in names if name in self._sequences for item in self._items(name)]
            for split, names in lists.items()
        }

    def _lists(self) -> dict[str, list[str]]:
        """Names of the sequences by split, as `ImageSets` lists them (all of them twice in `trainval`)."""
        lists = {}
        if self._year:
            for path in sorted((self._root / "ImageSets" / self._year).glob("*.txt")):
                if path.stem != "trainval":
                    lists[path.stem] = list(dict.fromkeys(_sequence_names(path)))
        return lists

    def _items(self, sequence: str) -> Iterator[Item]:
        frames, labels = self._sequences[sequence]
        for path in frames.iterdir():
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if not path.stem.isdigit():
                raise DatasetError(f"davis: {path}: expected a frame number as name, like 00000")
            label = labels / f"{path.stem}.png"
            yield Item(
                video_id=sequence,
                frame_index=int(path.stem),
                image=str(path),
                label=str(label) if label.is_file() else None,
            )

    def _labels(self, item: Item) -> np.ndarray:
        assert item.label is not None
        stored = read_stored(item.label)
        stored_HWC = stored.reshape(*stored.shape[:2], -1)
        return np.any(stored_HWC, axis=2).astype(np.uint8)


def _choice(folder: Path, known: tuple[str, ...], asked: str, option: str, *, needed: bool) -> str:
    """The folder asked for, or the first known one that is there; empty if there is none and none needed."""
    there = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if asked and asked not in there:
        hint = nearest(asked, there) or (f"; there are: {', '.join(there)}" if there else "")
        raise DatasetError(f"davis: {option}={asked}: {folder / asked} not found{hint}")
    found = asked or next((name for name in known if name in there), "")
    if needed and not found:
        raise DatasetError(f"davis: {folder}: expected one of {', '.join(known)} in it")
    return found


def _flat_sequences(root: Path) -> dict[str, tuple[Path, Path]]:
    parts = [root] if (root / "frames").is_dir() else sorted(root.iterdir())
    found = {part.name: (part / "frames", part / "labels") for part in parts if (part / "frames").is_dir()}
    if not found:
        raise DatasetError(
            f"davis: {root}: expected JPEGImages/ and Annotations/, or SEQUENCE/frames/ and SEQUENCE/labels/"
        )
    return found


def _sequence_names(path: Path) -> Iterator[str]:
    """Lines are names, or, in the first release, paths of an image and its annotation."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if words := line.split():
            yield Path(words[0]).parent.name if "/" in words[0] else words[0]
