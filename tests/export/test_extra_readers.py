"""Promise: FiftyOne, supervision and Datumaro (CVAT's importer) read what is exported for them.

No dependency of ours asks for them, so this runs only where they are installed (`pip install fiftyone
supervision datumaro`, best in an environment of their own). FiftyOne's importer needs no database.
"""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.export.runs import CLASSES, FRAMES, VIDEOS, export, labels

EVERY_FRAME = {(video_id, number) for video_id in VIDEOS for number in range(FRAMES)}


def place_of(path: str) -> tuple[str, int]:
    """Video and number of a file `VIDEO-FRAME`."""
    video_id, _, number = Path(path).stem.rpartition("-")
    return video_id, int(number)


def test_fiftyone_imports_pictures_and_masks(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("fiftyone", reason="an extra check, for machines that have FiftyOne")
    importers: Any = importlib.import_module("fiftyone.utils.data.importers")
    export(run, tmp_path / "out", "fiftyone")
    with importers.ImageSegmentationDirectoryImporter(str(tmp_path / "out"), load_masks=True) as importer:
        found = {place_of(path): label.mask for path, _, label in importer}
    assert set(found) == EVERY_FRAME
    for place, mask_HW in found.items():
        np.testing.assert_array_equal(mask_HW, labels(*place))


def test_supervision_imports_yolo(run: Path, tmp_path: Path) -> None:
    supervision: Any = pytest.importorskip(
        "supervision", reason="an extra check, where supervision is installed"
    )
    export(run, tmp_path / "out", "yolo")
    parts = [str(tmp_path / "out" / name) for name in ("images", "labels", "data.yaml")]
    data = supervision.DetectionDataset.from_yolo(*parts, force_masks=True)
    assert data.classes == CLASSES and {place_of(path) for path, _, _ in data} == EVERY_FRAME
    for path, _, found in data:
        labels_HW = np.zeros_like(labels(*place_of(path)))
        for label, mask_HW in zip(found.class_id, found.mask, strict=True):
            labels_HW[mask_HW] = label
        np.testing.assert_array_equal(labels_HW, labels(*place_of(path)))


def test_datumaro_imports_the_archive_for_cvat(run: Path, tmp_path: Path) -> None:
    datumaro: Any = pytest.importorskip("datumaro", reason="an extra check, as above")
    export(run, tmp_path / "out", "cvat")
    with zipfile.ZipFile(tmp_path / "out/annotations.zip") as archive:
        archive.extractall(tmp_path / "voc")
    data = datumaro.Dataset.import_from(str(tmp_path / "voc"), "voc_segmentation")
    names = [label.name for label in data.categories()[datumaro.AnnotationType.label]]
    assert (
        names == ["background", "person", "thing a"] and {place_of(item.id) for item in data} == EVERY_FRAME
    )
    for item in data:
        labels_HW = np.zeros_like(labels(*place_of(item.id)))
        for found in item.annotations:
            if found.type == datumaro.AnnotationType.mask:
                labels_HW[found.image.astype(bool)] = found.label
        np.testing.assert_array_equal(labels_HW, labels(*place_of(item.id)))
