"""Configurations of the small verbs: compact, status, demo and doctor.

The same rules as in `vidseg_core.config.segment`: frozen, valid once they exist, one text per field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vidseg_core.config.catalogue import INTERVAL, SCHEDULERS
from vidseg_core.config.errors import check, check_int, check_name
from vidseg_core.config.export import check_place

__all__ = ["CompactConfig", "DemoConfig", "DoctorConfig", "StatusConfig"]


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

    FIRST: ClassVar[str] = "run"

    def __post_init__(self) -> None:
        check_place("--run", self.run)
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
        check_place("--run", self.run)


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
        check_place("--output", self.output)
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
        check_place("--output", self.output)
        check_place("--s3", self.s3)
        check_place("--dataset", self.dataset)
        if self.s3 is not None:
            bucket = self.s3.removeprefix("s3://").partition("/")[0]
            fine = self.s3.startswith("s3://") and bool(bucket)
            check(fine, "--s3", f"must look like s3://bucket/prefix, got {self.s3!r}")
