"""The formats of an export: one table that the verbs, their checks and their messages read.

A new one is a function that writes the shots of a `Take` and returns what it counts, a line here, and its
name in `config.export`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from vidseg_core.export.clip import write_overlays
from vidseg_core.export.coco import write_coco
from vidseg_core.export.cvat import write_cvat
from vidseg_core.export.folders import write_fiftyone, write_images_masks, write_png
from vidseg_core.export.take import Take
from vidseg_core.export.tracks import write_davis, write_mots, write_youtube_vis
from vidseg_core.export.yolo import write_yolo

__all__ = ["FORMATS", "Format"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way of writing masks."""

    write: Callable[[Take], int]
    """Writes everything below `Take.out`; returns how many."""
    counts: str
    """What it counts."""
    writes: tuple[str, ...]
    """What it makes in its folder; `{video}`: one of each video."""
    pictures: Literal["none", "optional", "needed", "own"] = "none"
    """Whether frames of the source lie beside the masks; own: it reads them itself."""
    objects: bool = False
    """Whether it wants objects: each class is one."""

    def targets(self, videos: Sequence[str]) -> list[str]:
        """What an export of these videos makes in its folder."""
        fixed = [name for name in self.writes if "{" not in name]
        each = [name for name in self.writes if "{" in name]
        return fixed + [name.format(video=video_id) for video_id in videos for name in each]


FORMATS: dict[str, Format] = {
    "png": Format(write=write_png, counts="mask", writes=("{video}",)),
    "images-masks": Format(
        write=write_images_masks, counts="frame", writes=("images", "masks", "classes.txt"), pictures="needed"
    ),
    "coco": Format(
        write=write_coco,
        counts="annotation",
        writes=("images", "coco.json"),
        pictures="optional",
        objects=True,
    ),
    "yolo": Format(
        write=write_yolo,
        counts="frame",
        writes=("images", "labels", "data.yaml"),
        pictures="optional",
        objects=True,
    ),
    "youtube-vis": Format(
        write=write_youtube_vis,
        counts="track",
        writes=("JPEGImages", "instances.json"),
        pictures="optional",
        objects=True,
    ),
    "davis": Format(
        write=write_davis,
        counts="frame",
        writes=("Annotations", "JPEGImages", "ImageSets", "objects.json", "frames.csv"),
        pictures="optional",
        objects=True,
    ),
    "mots": Format(
        write=write_mots,
        counts="frame",
        writes=("MOTS-train", "seqmaps", "classes.txt", "frames.csv"),
        pictures="optional",
        objects=True,
    ),
    "cvat": Format(write=write_cvat, counts="frame", writes=("images", "annotations.zip"), pictures="needed"),
    "fiftyone": Format(
        write=write_fiftyone,
        counts="frame",
        writes=("data", "labels", "mask_targets.json"),
        pictures="needed",
    ),
    "overlay": Format(write=write_overlays, counts="frame", writes=("{video}.mp4",), pictures="own"),
}
