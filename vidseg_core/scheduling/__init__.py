"""Key or not: one file per scheduler, all behind one protocol.

The schedulers' classes (`Fixed`, `WarpError`, `Planner`, ...) are here as well, imported when asked for.
"""

from __future__ import annotations

from typing import Any

from vidseg_core.config import catalogue
from vidseg_core.registry import load
from vidseg_core.scheduling.by_name import SCHEDULERS, build_scheduler, scheduler_of
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.history import HISTORY_LENGTH, DecisionHistory
from vidseg_core.scheduling.lookahead_window import LookaheadWindow
from vidseg_core.scheduling.protocol import Scheduler, WindowScheduler

__all__ = [
    "HISTORY_LENGTH",
    "SCHEDULERS",
    "DecisionHistory",
    "Deviation",
    "LookaheadWindow",
    "Scheduler",
    "WindowScheduler",
    "build_scheduler",
    "scheduler_of",
]

PlanWindow = LookaheadWindow
"""The name that plug-ins of earlier versions import."""
_CLASSES = {entry.made_by.rpartition(":")[2]: entry.made_by for entry in catalogue.SCHEDULERS.values()}


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return load(_CLASSES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
