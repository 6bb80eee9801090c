"""Promise: a class map names what becomes of every class, and says in one sentence what it forgot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidseg_core.datasets.records import IGNORE, DatasetError
from vidseg_core.datasets.remap import load_class_map

NAMES = ("ground", "cat", "dog", "void")


def _file(folder: Path, text: str) -> Path:
    path = folder / "map.yaml"
    path.write_text(text)
    return path


def test_classes_are_renamed_merged_and_ignored(tmp_path: Path) -> None:
    path = _file(
        tmp_path, "classes: [animal, floor]\nmap: {ground: floor, cat: animal, dog: animal, void: ignore}"
    )
    classes = load_class_map(path, NAMES)
    assert classes.class_names == ("animal", "floor")
    labels_HW = np.array([[0, 1, 2], [3, IGNORE, 0]], dtype=np.uint8)
    assert classes.table()[labels_HW].tolist() == [[1, 0, 0], [IGNORE, IGNORE, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [a]\nmap: {ground: a, cat: a, dog: a}", "misses class void"),
        ("classes: [a]\nmap: {ground: a, cat: a, dgo: a, dog: a, void: a}", "no class dgo.*dog"),
        ("classes: [a]\nmap: {ground: b, cat: a, dog: a, void: a}", "ground goes to b"),
        ("just text", "expected classes:"),
        ("classes: [a\nmap", "is not YAML"),
        ("classes: a\nmap: {}", "expected classes:"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_class_map(_file(tmp_path, text), NAMES)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nothing\.yaml: cannot be read"):
        load_class_map(tmp_path / "nothing.yaml", NAMES)
