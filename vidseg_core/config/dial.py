"""The dial of ``vidseg segment``: how --budget and --max_drop look at the corpus before the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidseg_core.config.catalogue import INTERVAL, SCHEDULERS, TRIED_PROPAGATORS
from vidseg_core.config.errors import ConfigError, check, check_int, nearest
from vidseg_core.config.regions import RegionsConfig

__all__ = ["CLIPS", "CLIP_FRAMES", "TRIED", "CalibrationConfig", "check_dial"]

TRIED = tuple(name for name, entry in SCHEDULERS.items() if entry.walks_tables)
"""Schedulers that a calibration can try; the trained ones need their file."""

CLIPS, CLIP_FRAMES = 12, 96
"""The full sample: runs of frames, and frames of each."""


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """The sample that is run frame by frame first, and what is checked afterwards."""

    clips: int | None = None
    """runs of frames looked at, drawn over all videos; at least 2; below 9 no promise of --max_drop holds;
    None: 12, fewer or none where they would cost more than half of the job"""
    clip_frames: int | None = None
    """frames of each run; 16 to 2000 (a run costs about frames x 45 flows); None: 96, fewer as for clips"""
    schedulers: tuple[str, ...] = ()
    """those to try; none given: those without a file, what --scheduler.policy gives, and the planner where
    the net costs enough"""
    propagators: tuple[str, ...] = ()
    """those to try beside --propagation.name: copy, flow_warp, match; none given: those worth their cost"""
    grids: tuple[str, ...] = ()
    """regions, such as 2x2, to try beside whole frames"""
    quality: Literal["fidelity", "accuracy"] = "fidelity"
    """what counts against the net on every frame: mean IoU (hard on small classes), or pixels"""
    audit_frames: int = 48
    """frames of the net after the run, to see what was kept; 0: none"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedulers", tuple(self.schedulers))
        if self.clips is not None:
            check_int("--calibration.clips", self.clips, 2, 1000)
        if self.clip_frames is not None:
            check_int("--calibration.clip_frames", self.clip_frames, 16, 2000, "frames")
        check_int("--calibration.audit_frames", self.audit_frames, 0, 100_000, "frames")
        measures = ("fidelity", "accuracy")
        problem = f"must be fidelity or accuracy, got {self.quality!r}"
        check(self.quality in measures, "--calibration.quality", problem)
        for name in self.schedulers:
            problem = f"cannot try {name!r}{nearest(name, TRIED)}; known: {', '.join(TRIED)}"
            check(name in TRIED, "--calibration.schedulers", problem)
        object.__setattr__(self, "grids", tuple(self.grids))
        for grid in self.grids:
            try:
                fine = RegionsConfig(grid=grid).on
            except ConfigError as problem:
                raise ConfigError("--calibration.grids", problem.problem) from problem
            check(fine, "--calibration.grids", f"{grid} is whole frames, which are tried anyway")
        object.__setattr__(self, "propagators", tuple(self.propagators))
        for name in self.propagators:
            known = ", ".join(TRIED_PROPAGATORS)
            problem = f"cannot try {name!r}{nearest(name, TRIED_PROPAGATORS)}; known: {known}"
            check(name in TRIED_PROPAGATORS, "--calibration.propagators", problem)


def check_dial(budget: float | None, max_drop: float | None, threshold: float | None, interval: int) -> None:
    """`ConfigError` for values out of range, and for a dial together with what it would choose."""
    if budget is None and max_drop is None:
        return
    both = budget is not None and max_drop is not None
    check(not both, "--budget", "and --max_drop are one dial: give one of them")
    option = "--budget" if budget is not None else "--max_drop"
    chosen = f"{option} chooses it; give one of the two"
    check(threshold is None, "--scheduler.threshold", chosen)
    check(interval == INTERVAL, "--scheduler.interval", chosen)
    if budget is not None:
        check(
            _number(budget) and 0 < budget <= 1, "--budget", f"must be a share above 0 to 1, got {budget!r}"
        )
    if max_drop is not None:
        fine = _number(max_drop) and 0 < max_drop <= 100
        check(fine, "--max_drop", f"must be points of fidelity above 0 to 100, got {max_drop!r}")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
