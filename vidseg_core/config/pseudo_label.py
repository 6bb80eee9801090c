"""Configuration of ``vidseg pseudo-label``: that of ``vidseg segment`` and what makes labels of masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vidseg_core.config.errors import check
from vidseg_core.config.segment import SegmentConfig

__all__ = ["PseudoLabelConfig"]


@dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig(SegmentConfig):
    """Label videos with a teacher net, for a student to learn from.

    All of vidseg segment (key frames and propagation, or --scheduler.name every; resumable), with
    confidences: pixels that the teacher is not sure of become 255, and are not learned.
    """

    min_confidence: float = 0.9
    """pixels whose class has a lower probability become 255; 0 to 1"""
    remap: str | None = None
    """YAML file that renames and merges the teacher's classes: classes: [...], map: {old: new or ignore}"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        **SegmentConfig.HELP_GROUPS,
        "min_confidence": "what becomes a label",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        option = "--budget" if self.budget is not None else "--max_drop"
        check(not self.has_dial, option, "goes with vidseg segment, not with pseudo-label")
        problem = f"{self.regions.grid} does not go with pseudo-label: confidences are of whole frames"
        check(not self.regions.on, "--regions.grid", problem)
        number = isinstance(self.min_confidence, (int, float)) and 0 <= self.min_confidence <= 1
        check(number, "--min_confidence", f"must be a number from 0 to 1, got {self.min_confidence!r}")

    def fingerprint_fields(self) -> dict[str, Any]:
        """As `SegmentConfig`, and the threshold; the remap counts by its content (`engine.assemble`)."""
        return {**super().fingerprint_fields(), "min_confidence": float(self.min_confidence)}

    def describe(self) -> str:
        """The run in one line for people."""
        return f"{super().describe()}; labels from confidence {self.min_confidence:g}"
