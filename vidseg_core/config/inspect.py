"""Configuration of ``vidseg inspect``: which frames of a run, and in which form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from vidseg_core.config.errors import check, check_int, nearest
from vidseg_core.config.export import FORMATS, FormatName, FrameChoice, check_place

__all__ = ["FORMS", "InspectConfig"]

FORMS = ("why", "frame", "sheet", "overlay")


@dataclass(frozen=True, kw_only=True)
class InspectConfig(FrameChoice):
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
    export: Literal["none", FormatName] = "none"
    """also export the frames that are looked at, into a folder of the format's name (see vidseg export)"""
    overwrite: bool = False
    """--export: write over an export that is there already"""
    sources: str | None = None
    """folder with the videos, if they have moved since the run; searched by file name"""

    video: tuple[str, ...] = ()
    """only these video ids, or how they begin (repeatable); none given: the first ones"""
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
    """--export, forms of objects: also a class 0 that is called background"""
    log: Literal["text", "json"] = "text"
    """how messages are printed"""

    FIRST: ClassVar[str] = "run"
    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "run": "what and in which form",
        "video": "which frames",
        "size": "how",
    }

    def __post_init__(self) -> None:
        asked = tuple(self.show) or (("why", "sheet") if self.export == "none" else ())
        object.__setattr__(self, "show", asked)
        self.check_choice()
        for option, value in (("--run", self.run), ("--output", self.output), ("--sources", self.sources)):
            check_place(option, value)
        check("://" not in self.output, "--output", "must be a local folder")
        for form in self.show:
            known = ", ".join(FORMS)
            check(form in FORMS, "--show", f"cannot show {form!r}{nearest(form, FORMS)}; known: {known}")
        known = ", ".join(("none", *FORMATS))
        check(self.export == "none" or self.export in FORMATS, "--export", f"must be one of {known}")
        check("://" not in (self.sources or ""), "--sources", "must be a local folder")
        check_int("--limit", self.limit, 1, 1000)
        check_int("--size", self.size, 64, 8192, "pixels")
