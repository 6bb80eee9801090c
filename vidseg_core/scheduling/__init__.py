"""Key or not: one file per scheduler, all behind one protocol."""

from __future__ import annotations

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
