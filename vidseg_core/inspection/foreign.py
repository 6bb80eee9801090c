"""Chosen frames for other people's tools: FiftyOne's segmentation folders, CVAT's `Segmentation mask 1.1`.

Both want pictures beside masks of the same size and name, `VIDEO-FRAME`:

    fiftyone/data/NAME.jpg  fiftyone/labels/NAME.png  fiftyone/mask_targets.json
    cvat/images/NAME.jpg    cvat/annotations.zip: labelmap.txt, ImageSets/Segmentation/default.txt,
                            SegmentationClass/NAME.png, SegmentationObject/NAME.png

FiftyOne: `Dataset.from_dir(dataset_dir=..., dataset_type=fo.types.ImageSegmentationDirectory)`; pixel values
are class ids. CVAT: a task from `images/`, then "Upload annotations", format "Segmentation mask 1.1"; pixel
colours are those of `labelmap.txt`. Bytes of the archive depend on its content alone.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vidseg_core.store.atomic import make_folder, whole_file, write_whole
from vidseg_core.store.export.palette import PALETTE

Shot = tuple[str, np.ndarray, np.ndarray]
"""Name, frame_HW3 uint8, labels_HW uint8 of the same size."""
BACKGROUND = "background"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_fiftyone(out: Path, shots: Iterable[Shot], class_names: Sequence[str]) -> int:
    """The folder `out/fiftyone`; how many frames."""
    root = out / "fiftyone"
    for part in ("data", "labels"):
        make_folder(root / part)
    count = 0
    for name, frame_HW3, labels_HW in shots:
        write_whole(root / "data" / f"{name}.jpg", _jpeg(frame_HW3), sync=False)
        write_whole(root / "labels" / f"{name}.png", _png(labels_HW), sync=False)
        count += 1
    targets = {str(place): name for place, name in enumerate(class_names)}
    write_whole(root / "mask_targets.json", (json.dumps(targets, indent=1) + "\n").encode())
    return count


def write_cvat(out: Path, shots: Iterable[Shot], class_names: Sequence[str]) -> int:
    """The folder `out/cvat` with `images/` and `annotations.zip`; how many frames."""
    root = out / "cvat"
    make_folder(root / "images")
    names = []
    with (
        whole_file(root / "annotations.zip") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, frame_HW3, labels_HW in shots:
            write_whole(root / "images" / f"{name}.jpg", _jpeg(frame_HW3), sync=False)
            _put(archive, f"SegmentationClass/{name}.png", _png(PALETTE[labels_HW]))
            _put(archive, f"SegmentationObject/{name}.png", _png(PALETTE[labels_HW]))
            names.append(name)
        _put(archive, "labelmap.txt", label_map(class_names).encode())
        _put(archive, "ImageSets/Segmentation/default.txt", "".join(f"{n}\n" for n in names).encode())
    return len(names)


def label_map(class_names: Sequence[str]) -> str:
    """`name:r,g,b::` for each class; class 0 is CVAT's background."""
    lines = ["# label:color_rgb:parts:actions"]
    for place, name in enumerate(class_names[: len(PALETTE)]):  # a mask holds no other
        red, green, blue = (int(part) for part in PALETTE[place])
        shown = BACKGROUND if place == 0 else _plain(name)
        lines.append(f"{shown}:{red},{green},{blue}::")
    return "\n".join(lines) + "\n"


def _plain(name: str) -> str:
    """A class name without what the file uses to part its fields."""
    return " ".join(name.replace(":", " ").split()) or "class"


def _png(picture: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, format="png")
    return sink.getvalue()


def _jpeg(picture: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, format="jpeg", quality=92)
    return sink.getvalue()


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)
