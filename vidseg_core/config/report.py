"""Configuration of ``vidseg report``: what is shown, and what the page is asked to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from vidseg_core.config.errors import check, check_int
from vidseg_core.config.export import check_place
from vidseg_core.config.schema import redact

__all__ = ["ReportConfig"]


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """One self-contained page from what was evaluated, segmented, trained or searched.

    Every --input is looked at and recognised; sections appear where there is data, the page says what is
    missing. It needs no network and opens by double click; its plots lie beside it as PNG and SVG.
    """

    input: tuple[str, ...]
    """outputs of evaluate, segment, pseudo-label, train-..., tune; folders or s3://...; repeatable"""
    output: str = "vidseg-report"
    """local folder for index.html and plots/"""
    sources: str | None = None
    """folder with the videos, if they have moved since a run; searched by file name"""
    title: str = "vidseg report"
    """heading of the page"""

    aki: float = 25.0
    """key interval at which histograms, timelines and masks are shown: of each method the nearest point"""
    clip: str | None = None
    """clip of timeline and masks, or how it begins; None: where methods differ most, the first of a run"""
    strip_frames: int = 5
    """frames in a mask strip, far from keys; 1 to 12"""
    worst: int = 12
    """frames in the gallery of worst frames; 0: none"""

    cpu_hour: float = 0.04
    """price of one core for an hour"""
    gpu_hour: float = 1.0
    """price of one GPU for an hour"""
    currency: str = "USD"
    """unit of the two prices, for show"""

    log: Literal["text", "json"] = "text"
    """how messages are printed"""

    ANY_OF: ClassVar[str] = "input"
    """one of these places must be there; the page says what of the others is missing"""
    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "input": "what and where to",
        "aki": "what to look at",
        "cpu_hour": "prices",
        "log": "this run",
    }

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", tuple(self.input))
        check(
            bool(self.input), "--input", "needs at least one output of evaluate, segment, train-... or tune"
        )
        for option, value in (("--output", self.output), *(("--input", text) for text in self.input)):
            check(bool(value.strip()), option, "must not be empty")
            problem = f"holds credentials ({redact(value)}); they belong in the environment"
            check(redact(value) == value, option, problem)
        check("://" not in self.output, "--output", "must be a local folder")
        check_place("--sources", self.sources)
        check("://" not in (self.sources or ""), "--sources", "must be a local folder")
        check(1 <= self.aki < 1e6, "--aki", f"must be a key interval of at least 1 frame, got {self.aki:g}")
        check_int("--strip_frames", self.strip_frames, 1, 12)
        check_int("--worst", self.worst, 0, 200)
        for option, price in (("--cpu_hour", self.cpu_hour), ("--gpu_hour", self.gpu_hour)):
            check(0 <= price < float("inf"), option, f"must be a price of at least 0, got {price:g}")
