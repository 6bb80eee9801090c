"""Options `--media.*`, what is read of a file, and `--masks.*`, what is written for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidseg_core.config.errors import ConfigError, check, check_choice, check_int, check_positive
from vidseg_core.config.excerpt import Excerpt


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """The masks that are written."""

    size: Literal["working", "source"] = "working"
    """working: as the net saw the frame; source: scaled to the video's display size (nearest)"""

    def __post_init__(self) -> None:
        check_choice("--masks.size", self.size, ("working", "source"))


@dataclass(frozen=True, kw_only=True)
class MediaConfig:
    """What is read of a file, and limits for untrusted ones; a video that breaks one is quarantined."""

    stream: int | None = None
    """number of the stream to read, counted over all streams of a file; default: the one that is the video"""
    fps: float | None = None
    """frames a second to process, nearest to even times; None: every frame"""
    start_s: float | None = None
    """begin here, seconds from a video's first frame"""
    end_s: float | None = None
    """end before this, seconds from a video's first frame"""
    sequence_fps: float = 25.0
    """frames a second of a folder of numbered pictures (one address: FOLDER#fps=24); 0.001 to 1000"""
    hdr: Literal["map", "raw"] = "map"
    """map: HDR (PQ, HLG) becomes BT.709, which nets know; raw: it stays as it is"""
    max_pixels: int = 64_000_000
    """largest frame, width x height in pixels"""
    decode_deadline_s: float = 120.0
    """a decoder without progress for so long is killed, seconds"""
    memory_mib: int = 4096
    """address space of a decoder beyond its start, MiB; at least 64"""

    def __post_init__(self) -> None:
        if self.stream is not None:
            check_int("--media.stream", self.stream, 0)
        if found := self.excerpt.problem():
            raise ConfigError(f"--media.{found[0]}", found[1])
        check_positive("--media.sequence_fps", self.sequence_fps, "frames a second")
        problem = f"must be 0.001 to 1000 frames a second, got {self.sequence_fps:g}"
        check(0.001 <= self.sequence_fps <= 1000, "--media.sequence_fps", problem)
        check_choice("--media.hdr", self.hdr, ("map", "raw"))
        check_int("--media.max_pixels", self.max_pixels, 1, unit="pixel(s)")
        check_positive("--media.decode_deadline_s", self.decode_deadline_s, "seconds")
        check_int("--media.memory_mib", self.memory_mib, 64, unit="MiB")

    @property
    def excerpt(self) -> Excerpt:
        """Which frames of a video are processed, unless a list says otherwise."""
        return Excerpt(fps=self.fps, start_s=self.start_s or None, end_s=self.end_s)

    @property
    def memory_bytes(self) -> int:
        """`memory_mib` in bytes."""
        return self.memory_mib * 2**20
