"""From a scheduler's name and options to the scheduler; classes are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidseg_core.config import catalogue
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.schema import from_dict
from vidseg_core.config.segment import SchedulerConfig
from vidseg_core.registry import Registry
from vidseg_core.scheduling.protocol import Scheduler, WindowScheduler

SCHEDULERS = Registry("scheduler", {name: entry.made_by for name, entry in catalogue.SCHEDULERS.items()})


def build_scheduler(name: str = catalogue.FIXED, **options: Any) -> Any:
    """A `Scheduler` or a `WindowScheduler`, by registry name or `package.module:Class`.

    Options are the scheduler's own (`interval` in frames, `threshold` in the unit its docstring states), or
    else the catalogue's. Unknown names and options raise UnknownNameError (a ValueError) that suggests the
    nearest.
    """
    entry = catalogue.SCHEDULERS.get(name)
    if entry is not None and entry.threshold is not None:
        options.setdefault("threshold", entry.threshold)
    if entry is not None and entry.takes_interval:
        options.setdefault("interval", catalogue.INTERVAL)
    return SCHEDULERS.build(name, **options)


def scheduler_of(config: SchedulerConfig, *, hand_interval: bool = False) -> Scheduler | WindowScheduler:
    """The scheduler that is configured. A plug-in is handed the interval if `hand_interval` says so."""
    options: dict[str, Any] = {"threshold": config.threshold, "policy": config.policy}
    entry = catalogue.SCHEDULERS.get(config.name)
    if hand_interval if entry is None else entry.takes_interval:
        options["interval"] = config.interval
    return build_scheduler(config.name, **{name: v for name, v in options.items() if v is not None})


def threshold_of(options: Mapping[str, Any]) -> float | None:
    """The threshold that a run's scheduler has, from the options that the run recorded; None: not known.

    A class that a run names is not imported to look at it.
    """
    if not options or options.get("threshold") is not None:
        return float(options["threshold"]) if options else None
    entry = catalogue.SCHEDULERS.get(options.get("name", ""))
    if entry is None:
        return None
    if entry.threshold is not None:
        return entry.threshold
    named = dict(options)
    if not entry.takes_interval:  # runs of older versions could name one, which did nothing
        named.pop("interval", None)
    try:
        scheduler = scheduler_of(from_dict(SchedulerConfig, named))
        return float(scheduler.threshold) if isinstance(scheduler, Scheduler) else None
    except (ConfigError, ValueError, OSError, AttributeError, TypeError):
        return None
