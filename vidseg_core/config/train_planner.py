"""Configuration of ``vidseg train-planner``. Tables and recipe decide the planner; the rest says where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vidseg_core.config.errors import check, check_int, check_positive
from vidseg_core.config.schema import flat_dict, redact, to_yaml

__all__ = ["TrainPlannerConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainPlannerConfig:
    """Learn a scheduler that looks ahead, for batch jobs, on the tables of build-episodes.

    --tables and --output suffice. It takes a minute or two for ten clips and starts no Ray.
    """

    tables: tuple[str, ...]
    """folders or s3://bucket/prefix that build-episodes wrote; repeatable"""
    output: str
    """local folder for planner.safetensors and run.json"""
    stride: int = 3
    """every so many frames after the last key one may be a key; a multiple of the tables' --key_stride"""
    window: int = 180
    """frames to look ahead, at most twice the tables' --horizon, which limits the intervals, too"""
    intervals: tuple[float, ...] = (10.0, 25.0, 50.0)
    """average key intervals to find prices for; above 1"""
    folds: int = 10
    """parts in which clips are left out in turn, to choose and to measure; at least 2"""
    strengths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    """ridge penalties to choose from; above 0"""

    dry_run: bool = False
    """check the tables, train nothing"""
    log: Literal["text", "json"] = "text"
    """how progress and messages are printed"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {
        "tables": "what to learn from, and where to",
        "stride": "the recipe",
        "dry_run": "this run",
    }

    def __post_init__(self) -> None:
        for name in ("tables", "intervals", "strengths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check(bool(self.tables), "--tables", "must name a folder or s3://bucket/prefix")
        for place in self.tables:
            check(bool(place.strip()), "--tables", "must name a folder or s3://bucket/prefix")
            problem = f"holds credentials ({redact(place)}); they belong in the environment"
            check(redact(place) == place, "--tables", problem)
        check(bool(self.output.strip()), "--output", "must name a folder")
        check("://" not in self.output, "--output", "must be a local or shared folder")
        check_int("--stride", self.stride, 1, 1000, "frame(s)")
        check_int("--window", self.window, 2, 10_000, "frames")
        problem = f"must be at least twice --stride {self.stride}, got {self.window}"
        check(self.window >= 2 * self.stride, "--window", problem)
        check(bool(self.intervals), "--intervals", "needs at least one")
        for interval in self.intervals:
            check_positive("--intervals", interval, "frames")
            check(interval > 1, "--intervals", f"must be above 1 frame, got {interval:g}")
        check_int("--folds", self.folds, 2, 1000)
        check(bool(self.strengths), "--strengths", "needs at least one")
        for strength in self.strengths:
            check_positive("--strengths", strength)

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides the planner besides the tables, by option name."""
        places = ("tables", "output", "dry_run", "log")
        return {name: value for name, value in flat_dict(self).items() if name not in places}

    def to_yaml(self) -> str:
        """This configuration as a ``--config`` file."""
        return to_yaml(self)
