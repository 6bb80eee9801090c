"""Data sets by name: `open_dataset("camvid:/data/CamVid?val_clips=0016E5")`.

Model: a name leads to one class, imported when it is asked for; options that every layout understands wrap
what it opens. Invariant: opening looks at directory listings only, and whatever is wrong with the text or
the place is one `DatasetError`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from vidseg_core.config.errors import nearest
from vidseg_core.datasets.records import DatasetError, FrameDataset, iter_records
from vidseg_core.datasets.spec import DatasetSpec, parse_spec
from vidseg_core.plan.inputs import VIDEO_SUFFIXES

__all__ = ["LAYOUTS", "OPTIONS", "iter_records", "open_dataset"]

LAYOUTS: Mapping[str, str] = {
    "cityscapes": "cityscapes:Cityscapes",
    "camvid": "camvid:CamVid",
    "300vw-mask": "face_mask:FaceMask300VW",
    "davis": "davis:Davis",
    "vspw": "vspw:Vspw",
    "face": "video_sets:FaceVideos",
    "folder": "folder:FolderDataset",
    "scenes": "generated:GeneratedScenes",
    "tables": "tables:MaskTables",
    "videos": "video_sets:PlainVideos",
}
"""Name -> module and class in this package."""
OPTIONS = ("remap", "clips", "val_clips", "size", "labels_every", "regions", "overlap", "align")
"""Options of every layout."""
SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cityscapes", ("leftImg8bit", "leftImg8bit_sequence", "gtFine")),
    ("camvid", ("701_StillsRaw_full", "trainannot", "train_*/frames")),
    ("300vw-mask", ("images_orig", "300VW-Mask-Dataset")),
    ("vspw", ("label_num_dic_final.json", "data/*/origin")),
    ("davis", ("JPEGImages", "*/frames")),
    ("tables", ("run.json", "frames/video=*")),
    ("folder", ("images", "train/images")),
    ("face", ("*_labels",)),
)
"""Layout -> what it alone has, as patterns in its folder; the first that matches wins."""


def open_dataset(text: str) -> FrameDataset:
    """The data set that `NAME:PATH?options` names; see docs/datasets.md. Raises `DatasetError`."""
    spec = parse_spec(text, frozenset(LAYOUTS))
    if spec.name is None:
        spec = replace(spec, name=guess_layout(spec.path))
    return _wrapped(layout_of(spec)(spec), spec)


def layout_of(spec: DatasetSpec) -> Any:
    """The class of a data set; `DatasetError` if there is none, or it has no such options."""
    place = LAYOUTS.get(str(spec.name))
    if place is None:
        hint = nearest(str(spec.name), LAYOUTS)
        raise DatasetError(f"unknown data set {spec.name!r}{hint}; known: {', '.join(LAYOUTS)}")
    module, _, cls = place.partition(":")
    layout = getattr(import_module(f"vidseg_core.datasets.{module}"), cls)
    for option in spec.options:
        if option not in (known := (*OPTIONS, *sorted(layout.OPTIONS))):
            hint = nearest(option, known)
            raise DatasetError(f"{spec.name}: no option {option!r}{hint}; known: {', '.join(known)}")
    return layout


def _wrapped(dataset: FrameDataset, spec: DatasetSpec) -> FrameDataset:
    """`dataset` with the options that every layout has."""
    if remap := spec.option("remap"):
        from vidseg_core.datasets.remap import RemappedDataset, load_class_map

        dataset = RemappedDataset(dataset, load_class_map(remap, dataset.class_names))
    clips, val_clips = spec.names("clips"), spec.names("val_clips")
    if clips or val_clips:
        from vidseg_core.datasets.wrapped import ClipsDataset

        dataset = ClipsDataset(dataset, clips=clips, val_clips=val_clips)
    if every := spec.option("labels_every"):
        from vidseg_core.datasets.wrapped import ThinnedLabels

        dataset = ThinnedLabels(dataset, every)
    if size := spec.option("size"):
        from vidseg_core.datasets.wrapped import ResizedDataset

        dataset = ResizedDataset(dataset, size)
    grid, pixels = spec.option("regions"), {name: spec.option(name) for name in ("overlap", "align")}
    if grid:
        from vidseg_core.datasets.regions import RegionsDataset, named_regions

        return RegionsDataset(dataset, named_regions(grid, **pixels))
    for name, text in pixels.items():
        if text:
            raise DatasetError(f"{name}={text} goes with regions, such as regions=2x2")
    return dataset


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
