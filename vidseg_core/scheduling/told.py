"""What a run's configuration tells of its scheduler: unit and threshold of its scores, and whether they say
anything about a frame at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.schema import from_dict
from vidseg_core.config.segment import SchedulerConfig
from vidseg_core.scheduling import SCHEDULERS, Scheduler, build_scheduler

UNITS: Mapping[str, str] = {
    "frame_difference": "gray levels",
    "flow_magnitude": "% of the longest side",
    "warp_error": "gray levels",
    "fixed": "frames since the last key",
    "policy": "probability of a key",
    "confidence": "1 - expected confidence",
    "confidence_sum": "frames' worth of quality",
}
UNSCORED = ("every", "fixed", "random")
"""Schedulers that do not look at the frame: their scores are means to an end."""


def looks_ahead(name: str) -> bool:
    """Whether it plans windows: its threshold is then the price of a key, not a limit of the score.

    A class that a run names is not imported to look at it.
    """
    if ":" in name:
        return False
    try:
        return hasattr(SCHEDULERS.find(name), "plan")
    except ValueError:  # a plug-in that is not here
        return False


def threshold_of(options: Mapping[str, Any]) -> float | None:
    """The threshold that a scheduler with these options has, where it can be told."""
    if not options:
        return None
    if options.get("threshold") is not None:
        return float(options["threshold"])
    if ":" in str(options.get("name", "")):
        return None
    try:
        config = from_dict(SchedulerConfig, dict(options))
        given = {"interval": config.interval, "policy": config.policy}
        known = {name: value for name, value in given.items() if value is not None}
        takes = {name: v for name, v in known.items() if SCHEDULERS.takes(config.name, name)}
        scheduler = build_scheduler(config.name, **takes)
        return float(scheduler.threshold) if isinstance(scheduler, Scheduler) else None
    except (ConfigError, ValueError, OSError, AttributeError, TypeError):
        return None
