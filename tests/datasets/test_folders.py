"""Promise: `folder:` reads frames and masks that anybody has as they are meant, and names masks that leave it
open.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.miniatures import (
    columns,
    frame_of,
    save,
    save_palette,
)
from tests.datasets.read import places
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import DatasetError, iter_records


def test_folder_with_equal_stems_and_class_names(tmp_path: Path) -> None:
    save(tmp_path / "images/a_7.jpg", frame_of("a", 7))
    save(tmp_path / "images/a_12.png", frame_of("a", 12))
    save_palette(tmp_path / "masks/a_7.png", columns([0, 1, 255]))
    (tmp_path / "classes.txt").write_text("# id 0 first\nsea\nland\n\n")
    dataset = open_dataset(f"folder:{tmp_path}")
    assert dataset.class_names == ("sea", "land") and dataset.splits == ("train", "all")
    first, second = iter_records(dataset, "train")
    assert (first.frame_index, second.frame_index) == (7, 12) and second.labels_HW is None
    np.testing.assert_array_equal(first.labels_HW, columns([0, 1, 255]))


def test_folder_with_clips_and_splits_counts_its_classes(tmp_path: Path) -> None:
    for split, clip in (("train", "x"), ("train", "y"), ("val", "z")):
        save(tmp_path / split / "images" / clip / "000001.png", frame_of(clip, 1))
        save(tmp_path / split / "masks" / clip / "000001.png", columns([0, 3, 255]))
    dataset = open_dataset(f"folder:{tmp_path}")
    assert dataset.splits == ("train", "val", "all")
    assert places(dataset, "train") == [("x", 1), ("y", 1)] and places(dataset, "val") == [("z", 1)]
    assert dataset.class_names == ("class0", "class1", "class2", "class3")


def test_frames_whose_names_do_not_number_them_are_numbered_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        save(tmp_path / f"images/{name}.png", frame_of(name, 0))
    dataset = open_dataset(f"folder:{tmp_path}")
    assert [Path(item.image).stem for item in dataset.items("all")] == ["a", "b", "c"]
    assert [item.frame_index for item in dataset.items("all")] == [0, 1, 2]


def binary_folder(root: Path, names: str = "") -> Path:
    """Two frames, masks of 0 and 255."""
    for number in range(2):
        mask_HW = np.zeros((8, 12), np.uint8)
        mask_HW[:, number:4] = 255
        save(root / "images" / f"{number}.png", np.zeros((8, 12, 3), np.uint8))
        save(root / "masks" / f"{number}.png", mask_HW)
    if names:
        (root / "classes.txt").write_text(names)
    return root


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        ("", "classes: [background, foreground] and map: {class0: background, 255: foreground}"),
        (
            "sea\nred: car\n",
            "classes: [sea, 'red: car'] and map: {sea: sea, 'red: car': 'red: car', 255: 'red: car'}",
        ),
    ],
)
def test_masks_of_0_and_255_are_named_with_the_map_to_write(names: str, lines: str, tmp_path: Path) -> None:
    folder = binary_folder(tmp_path, names)
    with pytest.raises(DatasetError, match="hold 0 and 255 only") as caught:
        assert open_dataset(f"folder:{folder}").class_names
    assert lines in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / "map.yaml").write_text(lines.replace(" and map:", "\nmap:"))
    dataset = open_dataset(f"folder:{folder}?remap={tmp_path / 'map.yaml'}")
    assert len(dataset.class_names) == 2
    labels_HW = dataset.read(dataset.items("all")[0]).labels_HW
    assert labels_HW is not None and np.unique(labels_HW).tolist() == [0, 1]


def test_a_map_that_does_not_speak_of_255_does_not_hide_them(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("classes: [a, b]\nmap: {class0: a}")
    with pytest.raises(DatasetError, match="hold 0 and 255 only"):
        open_dataset(f"folder:{binary_folder(tmp_path)}?remap={tmp_path / 'map.yaml'}")
    (tmp_path / "map.yaml").write_text("classes: [a, b]\nmap: {class0: a, 255: ignore}")
    assert open_dataset(f"folder:{tmp_path}?remap={tmp_path / 'map.yaml'}").class_names == ("a", "b")


def test_a_single_label_beside_0_and_255_is_enough(tmp_path: Path) -> None:
    save(binary_folder(tmp_path) / "masks" / "1.png", np.eye(8, 12, dtype=np.uint8))
    assert open_dataset(f"folder:{tmp_path}").class_names == ("class0", "class1")
