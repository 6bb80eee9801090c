"""Image and label files as arrays, strictly: what is cut short or of another kind is an error, not a guess.

Model: a picture is RGB, a label file is one number (or one colour) for each pixel, as stored; a palette PNG
gives its indices. Invariant: every error is a `DatasetError` that names the file.

Shape suffixes: H W rows and columns, 3 = RGB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vidseg_core.datasets.records import IGNORE, DatasetError

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"))
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, UnidentifiedImageError)


def read_rgb(path: str | Path) -> np.ndarray:
    """uint8 frame_HW3 of an image file, turned upright as its EXIF orientation says."""
    return np.array(ImageOps.exif_transpose(_open(path)).convert("RGB"))


def read_ids(path: str | Path) -> np.ndarray:
    """uint8 ids_HW of a label image with one channel: gray values, or the indices of a palette."""
    ids_HW = read_stored(path)
    if ids_HW.ndim != 2:
        raise DatasetError(f"{path}: labels must be an 8-bit image with one channel, this one has colours")
    return ids_HW


def read_stored(path: str | Path) -> np.ndarray:
    """A label image as it is: uint8 ids_HW (gray or palette; bits as 0 and 1) or colours_HW3."""
    image = _open(path)
    if image.mode in ("1", "L", "P"):
        return np.array(image).astype(np.uint8, copy=False)
    if image.mode not in ("RGB", "RGBA", "LA", "PA"):
        raise DatasetError(f"{path}: labels must have 8 bits a channel, this image is of mode {image.mode}")
    return np.array(image.convert("RGB"))


def read_colours(path: str | Path) -> np.ndarray:
    """uint8 colours_HW3 of a label image that shows each class in its colour."""
    return np.array(_open(path).convert("RGB"))


def check_ids(ids_HW: np.ndarray, classes: int, path: str | Path) -> np.ndarray:
    """`ids_HW`, if all are below `classes` or `IGNORE`; `DatasetError` names the first that is not."""
    counts = np.bincount(ids_HW.reshape(-1), minlength=256)
    counts[:classes] = 0
    counts[IGNORE] = 0
    if wrong := np.flatnonzero(counts).tolist():
        listed = ", ".join(map(str, wrong[:5]))
        raise DatasetError(
            f"{path}: label {listed} is out of range: there are {classes} classes (0 to {classes - 1}) "
            f"and {IGNORE} for ignored pixels"
        )
    return ids_HW


def check_sizes(frame_HW3: np.ndarray, labels_HW: np.ndarray, image: str, label: str) -> None:
    """`DatasetError` unless labels and frame cover the same pixels."""
    (height, width), (rows, columns) = frame_HW3.shape[:2], labels_HW.shape
    if (height, width) != (rows, columns):
        raise DatasetError(
            f"{label}: the labels are {columns}x{rows}, but their image {image} is {width}x{height}"
        )


def _open(path: str | Path) -> Image.Image:
    if not Path(path).is_file():
        raise DatasetError(f"{path}: no such file")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            return image
    except _BROKEN as error:
        raise DatasetError(f"{path}: cannot be read as an image ({error})") from error
