"""Configuration of ``vidseg export``, and the choice of frames that it shares with ``vidseg inspect``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, get_args

from vidseg_core.config.errors import ConfigError, check, check_int, nearest
from vidseg_core.config.schema import redact

__all__ = ["FORMATS", "ExportConfig", "FormatName", "FrameChoice", "check_place", "parse_frames"]

FormatName = Literal[
    "png",
    "images-masks",
    "coco",
    "yolo",
    "youtube-vis",
    "davis",
    "mots",
    "cvat",
    "fiftyone",
    "overlay",
]
FORMATS: tuple[str, ...] = get_args(FormatName)
"""What masks can be exported as; what writes each of them: `vidseg_core.export.formats`."""
_RANGE = re.compile(r"^(\d+)(?:-(\d+)(?::(\d+))?)?$")


class FrameChoice:
    """Which frames of which videos: a part of the options of a verb."""

    video: tuple[str, ...]
    frames: str
    from_s: float | None
    to_s: float | None
    keys_only: bool

    def check_choice(self) -> None:
        """`ConfigError` for frames that nothing can be."""
        object.__setattr__(self, "video", tuple(self.video))
        check(not self.frames or bool(parse_frames(self.frames)), "--frames", "names no frame")
        ranged = self.from_s is not None or self.to_s is not None
        check(not (ranged and self.frames), "--frames", "and a time range: give one of the two")
        if ranged:
            low, high = self.from_s or 0.0, self.to_s if self.to_s is not None else float("inf")
            check(
                0 <= low < high, "--from_s", f"must be from 0 up and before --to_s, got {low:g} to {high:g}"
            )

    @property
    def chooses(self) -> bool:
        """Whether frames were named at all."""
        return bool(self.frames) or self.from_s is not None or self.to_s is not None

    def wants(self, row: Mapping[str, Any]) -> bool:
        """Was the frame of this row asked for (or none at all)?"""
        if self.keys_only and not row["is_key"]:
            return False
        if self.frames:
            number, parts = row["frame_index"], parse_frames(self.frames)
            return any(
                first <= number <= last and (number - first) % step == 0 for first, last, step in parts
            )
        if self.from_s is None and self.to_s is None:
            return True
        seconds = row["pts_s"]  # a frame without a time is in no span of time
        return seconds is not None and (self.from_s or 0.0) <= seconds < (self.to_s or math.inf)


@dataclass(frozen=True, kw_only=True)
class ExportConfig(FrameChoice):
    """Write the masks of a run in a form that other people's tools read.

    png           VIDEO/FRAME.png: pixel value = class id
    images-masks  images/ and masks/ of equal names, classes.txt
    coco          coco.json and images/
    yolo          images/, labels/ (polygons) and data.yaml
    youtube-vis   instances.json and JPEGImages/
    davis         JPEGImages/480p, Annotations/480p, ImageSets/2017
    mots          MOTS-train/VIDEO/img1 and gt/gt.txt, seqmaps/
    cvat          images/ and annotations.zip, "Segmentation mask 1.1"
    fiftyone      data/, labels/, mask_targets.json
    overlay       VIDEO.mp4 to look at
    """

    run: str
    """folder or s3://bucket/prefix of a run of vidseg segment"""
    output: str
    """local folder to write into, outside of any run"""
    format: FormatName = "png"
    """what to write"""
    overwrite: bool = False
    """write over an export that is there already"""
    sources: str | None = None
    """folder with the videos, if they have moved since the run; searched by file name"""

    video: tuple[str, ...] = ()
    """only these video ids, or how they begin (repeatable); none given: all of the run"""
    frames: str = ""
    """frames by number: 120 or 100-200 or 100-400:25 (every 25th), several with commas"""
    from_s: float | None = None
    """start of a time range, seconds"""
    to_s: float | None = None
    """end of a time range, seconds"""
    keys_only: bool = False
    """key frames only (not overlay)"""

    images: bool = True
    """pictures beside the annotations; --no-images: none (coco, yolo, youtube-vis, davis, mots)"""
    background: bool = False
    """forms of objects: also a class 0 that is called background"""
    layout: Literal["blend", "side"] = "blend"
    """overlay: blended over the frame, or side by side with it"""
    legend: bool = True
    """overlay: class names and colours below the picture; --no-legend: none"""
    opacity: float = 0.35
    """overlay: of the colours inside their outlines; 0 (outlines alone) to 1"""
    key_marks: bool = True
    """overlay: a mark in the corner of key frames; --no-key_marks: none"""
    overlay_size: int = 960
    """overlay: longest side of the picture, pixels; 64 to 8192, never above the source's"""
    log: Literal["text", "json"] = "text"
    """how messages are printed"""

    FIRST: ClassVar[str] = "run"
    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "run": "what and in which form",
        "video": "which frames",
        "images": "how",
    }

    def __post_init__(self) -> None:
        self.check_choice()
        check_place("--run", self.run)
        check_place("--output", self.output)
        check_place("--sources", self.sources)
        check("://" not in self.output, "--output", "must be a local folder")
        check("://" not in (self.sources or ""), "--sources", "must be a local folder")
        known = ", ".join(FORMATS)
        check(
            self.format in FORMATS, "--format", f"must be one of {known}{nearest(str(self.format), FORMATS)}"
        )
        check(0 <= self.opacity <= 1, "--opacity", f"must be from 0 to 1, got {self.opacity:g}")
        check_int("--overlay_size", self.overlay_size, 64, 8192, "pixels")


def check_place(option: str, value: str | None) -> None:
    """`ConfigError` for a place that is empty or holds credentials."""
    if value is None:
        return
    check(bool(value.strip()), option, "must not be empty")
    problem = f"holds credentials ({redact(value)}); they belong in the environment, not in an address"
    check(redact(value) == value, option, problem)


@lru_cache
def parse_frames(text: str) -> tuple[tuple[int, int, int], ...]:
    """(first, last, step) of each part of `100-400:25,7`; `ConfigError` names the part that is none."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _RANGE.match(part)
        if match is None:
            raise ConfigError("--frames", f"{part!r} is neither a number nor a range such as 100-400:25")
        first, last, step = (int(group) if group is not None else None for group in match.groups())
        assert first is not None
        last, step = first if last is None else last, 1 if step is None else step
        check(first <= last, "--frames", f"{part!r} ends before it begins")
        check(step >= 1, "--frames", f"{part!r} has a step of 0")
        found.append((first, last, step))
    return tuple(found)
