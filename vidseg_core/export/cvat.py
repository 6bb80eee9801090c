"""CVAT's `Segmentation mask 1.1`: pictures to make a task from, and an archive to upload as its annotations.

    images/NAME.jpg
    annotations.zip: labelmap.txt, ImageSets/Segmentation/default.txt,
                     SegmentationClass/NAME.png, SegmentationObject/NAME.png

Colours are those of Pascal VOC, which CVAT expects of `SegmentationObject`; what they mean in
`SegmentationClass` says `labelmap.txt`. Black is CVAT's background. Bytes of the archive depend on its
content alone.
"""

from __future__ import annotations

import zipfile

import numpy as np

from vidseg_core.export.take import ONE_A_CLASS, Classes, Take, png
from vidseg_core.store.atomic import make_folder, whole_file

BACKGROUND = "background"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def _voc_colours() -> np.ndarray:
    """uint8 [256, 3]: Pascal VOC's colour of each number; its bits in turn are the highest of R, G and B."""
    numbers, colours = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= ((numbers >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours


COLOURS = _voc_colours()


def write_cvat(take: Take) -> int:
    """`images/` and `annotations.zip`; how many frames."""
    numbers, names = take.classes.numbers_below(len(COLOURS), "cvat"), []
    make_folder(take.out)
    with (
        whole_file(take.out / "annotations.zip") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for shot in take.all_shots():
            take.write_picture(f"images/{shot.name}.jpg", shot)
            colours = png(numbers[shot.labels_HW], COLOURS)
            for folder in ("SegmentationClass", "SegmentationObject"):
                _put(archive, f"{folder}/{shot.name}.png", colours)
            names.append(shot.name)
        _put(archive, "labelmap.txt", label_map(take.classes).encode())
        _put(archive, "ImageSets/Segmentation/default.txt", "".join(f"{n}\n" for n in names).encode())
    return len(names)


def label_map(classes: Classes) -> str:
    """`name:r,g,b::` for CVAT's background and each class."""
    lines = ["# label:color_rgb:parts:actions", f"# {ONE_A_CLASS}", f"{BACKGROUND}:0,0,0::"]
    for label, name in classes.objects.items():
        red, green, blue = (int(part) for part in COLOURS[classes.numbers[label]])
        lines.append(f"{_plain(name)}:{red},{green},{blue}::")
    return "\n".join(lines) + "\n"


def _plain(name: str) -> str:
    """A class name without what the file uses to part its fields."""
    return " ".join(name.replace(":", " ").split()) or "class"


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)
