"""Configurations of the small verbs: compact, status, export, demo and doctor.

The same rules as in `vidseg_core.config.segment`: frozen, valid once they exist, one text per field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vidseg_core.config.catalogue import INTERVAL, SCHEDULERS
from vidseg_core.config.errors import check, check_int, check_name
from vidseg_core.config.schema import redact

__all__ = ["CompactConfig", "DemoConfig", "DoctorConfig", "ExportConfig", "StatusConfig"]


def _check_place(option: str, value: str | None) -> None:
    if value is None:
        return
    check(bool(value.strip()), option, "must not be empty")
    problem = f"holds credentials ({redact(value)}); they belong in the environment, not in an address"
    check(redact(value) == value, option, problem)


@dataclass(frozen=True, kw_only=True)
class CompactConfig:
    """Merge the small part files of a run into larger ones. The rows stay the same, readers may go on."""

    run: str
    """folder or s3://bucket/prefix of a run of vidseg segment"""
    span_mib: int = 64
    """merge parts until they add up to this, MiB; 1 to 4096"""
    force: bool = False
    """also a run that is not complete; only when no job writes to it"""
    log: Literal["text", "json"] = "text"
    """how messages are printed"""

    def __post_init__(self) -> None:
        _check_place("--run", self.run)
        check_int("--span_mib", self.span_mib, 1, 4096, "MiB")


@dataclass(frozen=True, kw_only=True)
class StatusConfig:
    """Where a run stands: videos, frames, what is quarantined and why, what is open. Works while it runs.

    Reads the output only, so it reports on a run on any cluster, and on one that crashed. Exit code 1 if
    something that was committed is missing or damaged.
    """

    run: str
    """folder or s3://bucket/prefix of a run of vidseg segment"""
    verify: bool = False
    """also read every file and compare checksums; of runs of older versions, decode every mask"""
    log: Literal["text", "json"] = "text"
    """a table, or one JSON object"""

    FIRST: ClassVar[str] = "run"

    def __post_init__(self) -> None:
        _check_place("--run", self.run)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write the masks of a run as palette PNG files, as COCO run-lengths or as overlay videos.

    png: VIDEO/FRAME.png; coco: one coco.json; overlay: VIDEO.mp4, made from the source videos of the run.
    """

    run: str
    """folder or s3://bucket/prefix of a run of vidseg segment"""
    output: str
    """local folder to write into"""
    format: Literal["png", "coco", "overlay"] = "png"
    """what to write"""
    video: tuple[str, ...] = ()
    """only these video ids (repeatable); none given: all of the run"""
    keys_only: bool = False
    """key frames only (png, coco)"""
    layout: Literal["blend", "side"] = "blend"
    """overlay: blended over the frame, or side by side with it"""
    background: bool = False
    """coco: also annotate a class 0 that is called background"""
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "video", tuple(self.video))
        _check_place("--run", self.run)
        _check_place("--output", self.output)
        check("://" not in self.output, "--output", "must be a local folder")
        check(0 <= self.opacity <= 1, "--opacity", f"must be from 0 to 1, got {self.opacity:g}")
        check_int("--overlay_size", self.overlay_size, 64, 8192, "pixels")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Make a small corpus of generated scenes with exact truth, segment it with several schedulers, compare.

    Prints AKI, mIoU against the truth, agreement with the net on every frame and the share of the net's
    calls saved; writes an overlay video and a picture.
    """

    output: str = "vidseg-demo"
    """folder for the scenes, the runs and the pictures"""
    videos: int = 3
    """number of scenes, 1 to 100"""
    frames: int = 120
    """frames per scene, 24 to 10000"""
    schedulers: tuple[str, ...] = ("fixed", "frame_difference", "warp_error")
    """schedulers to compare; repeatable"""
    interval: int = INTERVAL
    """frames from key to key for the fixed scheduler, at least 1"""
    sides: Literal["one", "two"] = "two"
    """propagation from the keys on both sides, or from the last key only"""
    seed: int = 0
    """seed of the scenes"""
    workers: int = 0
    """engine workers; 0: what the machine has room for"""
    log: Literal["text", "json"] = "text"
    """how progress and messages are printed"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedulers", tuple(self.schedulers))
        _check_place("--output", self.output)
        check("://" not in self.output, "--output", "must be a local folder")
        check_int("--videos", self.videos, 1, 100)
        check_int("--frames", self.frames, 24, 10_000, "frames")
        check(bool(self.schedulers), "--schedulers", "needs at least one name")
        for name in self.schedulers:
            check_name("--schedulers", name, SCHEDULERS)
        check_int("--interval", self.interval, 1, unit="frame(s)")
        check_int("--seed", self.seed, 0, 2**63 - 1)
        check_int("--workers", self.workers, 0)


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Look at what a run would need here, and say what to do about what is missing. Exit code 0 or 1."""

    output: str | None = None
    """also: is this folder writable, and is there room"""
    s3: str | None = None
    """also: list s3://bucket/prefix and try a conditional write there (removed again)"""
    ray: bool = False
    """also: start a local Ray (or join $RAY_ADDRESS) and run one task; takes 10 to 40 s"""
    dataset: str | None = None
    """also: what the data set NAME:PATH[?OPTION=VALUE] holds and what it lacks; reads a few frames"""
    log: Literal["text", "json"] = "text"
    """a table, or one JSON object per check"""

    def __post_init__(self) -> None:
        _check_place("--output", self.output)
        _check_place("--s3", self.s3)
        _check_place("--dataset", self.dataset)
        if self.s3 is not None:
            bucket = self.s3.removeprefix("s3://").partition("/")[0]
            fine = self.s3.startswith("s3://") and bool(bucket)
            check(fine, "--s3", f"must look like s3://bucket/prefix, got {self.s3!r}")
