"""Options `--scheduler.*`: which frames are keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from vidseg_core.config.catalogue import (
    FILES,
    FIXED,
    INTERVAL,
    SCHEDULERS,
    listed,
    no_interval,
    scheduler_words,
)
from vidseg_core.config.errors import ConfigError, check, check_int, check_name


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Which frames are keys, that is, which frames the net runs on."""

    name: str = FIXED
    """{schedulers} or package.module:Class"""
    interval: int = INTERVAL
    """fixed: frames from key to key; random: their mean; at least 1"""
    threshold: float | None = None
    """a frame that scores above it is a key; planner, split: the price of a key; None: the scheduler's own"""
    policy: str | None = None
    """{trained_by}: file that this verb wrote; {files} without one"""
    max_interval: int = 90
    """a key is forced after so many frames, whatever the scheduler says; 1 to 10000"""

    HELP_WORDS: ClassVar[Mapping[str, str]] = scheduler_words()

    def __post_init__(self) -> None:
        check_name("--scheduler.name", self.name, SCHEDULERS)
        check_int("--scheduler.interval", self.interval, 1, unit="frame(s)")
        problem = no_interval(self.name)
        check(self.interval == INTERVAL or not problem, "--scheduler.interval", problem)
        check_int("--scheduler.max_interval", self.max_interval, 1, 10_000, "frames")
        if self.threshold is not None:
            fine = isinstance(self.threshold, (int, float)) and 0 <= self.threshold < float("inf")
            check(fine, "--scheduler.threshold", f"must be a number from 0 up, got {self.threshold!r}")
            takes = self.name not in SCHEDULERS or SCHEDULERS[self.name].scores
            problem = f"{self.name!r} has no threshold; it goes with {listed('scores')}"
            check(takes, "--scheduler.threshold", problem)
        self._check_policy()
        if self.name == FIXED and self.interval > self.max_interval:
            problem = f"is {self.max_interval}, below --scheduler.interval {self.interval}; raise it"
            raise ConfigError("--scheduler.max_interval", problem)

    def _check_policy(self) -> None:
        entry = SCHEDULERS.get(self.name)
        if self.policy is None and entry is not None:
            object.__setattr__(self, "policy", entry.file)
        if self.policy is None:
            verb = entry.trained_by if entry is not None else ""
            check(not verb, "--scheduler.policy", f"must name a file of {verb} for {self.name!r}")
            return
        check(bool(self.policy.strip()), "--scheduler.policy", "must name a file")
        if entry is None:
            return
        goes_with = FILES.get(self.policy, self.name)
        problem = f"{self.policy} goes with {goes_with}, not with {self.name!r}"
        check(goes_with == self.name, "--scheduler.policy", problem)
        problem = f"{self.name!r} reads no such file; it goes with {listed('trained_by')}"
        check(bool(entry.trained_by), "--scheduler.policy", problem)
