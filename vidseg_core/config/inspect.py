"""Configuration of ``vidseg inspect``: which frames of a run, and in which form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from vidseg_core.config.errors import ConfigError, check, check_int, nearest
from vidseg_core.config.schema import redact

__all__ = ["EXPORTS", "FORMS", "InspectConfig", "parse_frames"]

FORMS = ("why", "frame", "sheet", "overlay")
EXPORTS = ("none", "png", "coco", "fiftyone", "cvat")
_RANGE = re.compile(r"^(\d+)(?:-(\d+)(?::(\d+))?)?$")


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Look into a run: frames with their masks, why a frame was key or not, sheets, clips, exports.

    Without --frames or --from_s a few frames over each video are chosen. Finished or not, what is committed
    is shown.
    """

    run: str
    """folder or s3://bucket/prefix of a run of vidseg segment"""
    output: str = "vidseg-inspect"
    """local folder for pictures, clips and exports"""
    show: tuple[str, ...] = ()
    """why (decisions as text), frame (picture and mask), sheet (many at once), overlay (mp4); repeatable;
    none: why and sheet, with --export nothing else"""
    export: Literal["none", "png", "coco", "fiftyone", "cvat"] = "none"
    """masks of the chosen frames for other tools; png and coco without frames: of all frames"""

    video: tuple[str, ...] = ()
    """only these video ids (repeatable); none given: the first ones"""
    frames: str = ""
    """frames by number: 120 or 100-200 or 100-400:25 (every 25th), several with commas"""
    from_s: float | None = None
    """start of a time range, seconds"""
    to_s: float | None = None
    """end of a time range, seconds"""
    keys_only: bool = False
    """of the chosen frames only key frames"""
    limit: int = 12
    """frames of a video that are shown where none are named, and videos where none is named; 1 to 1000"""
    size: int = 640
    """longest side of a picture, pixels; 64 to 8192, never above the source's"""
    legend: bool = True
    """class names and colours below pictures, sheets and clips; --no-legend: none"""
    background: bool = False
    """coco: also annotate a class 0 that is called background"""
    log: Literal["text", "json"] = "text"
    """how messages are printed"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "run": "what and in which form",
        "video": "which frames",
        "size": "how",
    }

    def __post_init__(self) -> None:
        asked = tuple(self.show) or (("why", "sheet") if self.export == "none" else ())
        object.__setattr__(self, "show", asked)
        object.__setattr__(self, "video", tuple(self.video))
        for option, value in (("--run", self.run), ("--output", self.output)):
            check(bool(value.strip()), option, "must not be empty")
            problem = f"holds credentials ({redact(value)}); they belong in the environment"
            check(redact(value) == value, option, problem)
        check("://" not in self.output, "--output", "must be a local folder")
        for form in self.show:
            known = ", ".join(FORMS)
            check(form in FORMS, "--show", f"cannot show {form!r}{nearest(form, FORMS)}; known: {known}")
        check(self.export in EXPORTS, "--export", f"must be one of {', '.join(EXPORTS)}")
        parse_frames(self.frames)
        ranged = self.from_s is not None or self.to_s is not None
        check(not (ranged and self.frames), "--frames", "and a time range: give one of the two")
        if ranged:
            low, high = self.from_s or 0.0, self.to_s if self.to_s is not None else float("inf")
            check(
                0 <= low < high, "--from_s", f"must be from 0 up and before --to_s, got {low:g} to {high:g}"
            )
        check_int("--limit", self.limit, 1, 1000)
        check_int("--size", self.size, 64, 8192, "pixels")

    @property
    def chooses(self) -> bool:
        """Whether frames were named at all."""
        return bool(self.frames) or self.from_s is not None or self.to_s is not None


def parse_frames(text: str) -> list[tuple[int, int, int]]:
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
    return found
