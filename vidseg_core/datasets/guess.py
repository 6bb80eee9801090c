"""Which layout a folder has, for whoever gives a path alone."""

from __future__ import annotations

import os
from pathlib import Path

from vidseg_core.datasets.records import DatasetError
from vidseg_core.plan.inputs import VIDEO_SUFFIXES

SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cityscapes", ("leftImg8bit", "leftImg8bit_sequence", "gtFine")),
    ("camvid", ("701_StillsRaw_full", "trainannot", "train_*/frames")),
    ("300vw-mask", ("images_orig", "300VW-Mask-Dataset")),
    ("davis", ("JPEGImages", "*/frames")),
    ("tables", ("run.json", "frames/video=*")),
    ("folder", ("images", "train/images")),
    ("face", ("*_labels",)),
)
"""Layout -> what it alone has, as patterns in its folder; the first that matches wins."""


def guess_layout(path: str) -> str:
    """The name of the layout that `path` has; `DatasetError` if it looks like none."""
    root = Path(path).expanduser()
    if path.startswith("s3://"):
        return "tables"
    if root.is_file() and root.suffix.lower() in VIDEO_SUFFIXES:
        return "videos"
    if not root.is_dir():
        raise DatasetError(f"{path}: no such folder; expected NAME:PATH or the folder of a data set")
    for name, patterns in SIGNS:
        if any(next(root.glob(pattern), None) for pattern in patterns):
            return name
    if any(Path(name).suffix.lower() in VIDEO_SUFFIXES for name in os.listdir(root)):
        return "videos"
    known = ", ".join(name for name, _ in SIGNS)
    raise DatasetError(f"{path}: looks like none of {known}, videos; say which: NAME:{path}")
