"""Key or not: one file per scheduler, all behind one protocol."""

from __future__ import annotations

from typing import Any

from vidseg_core.registry import Registry
from vidseg_core.scheduling.confidence import Confidence, ConfidenceSum
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.every import Every
from vidseg_core.scheduling.fixed import Fixed
from vidseg_core.scheduling.flow_magnitude import FlowMagnitude
from vidseg_core.scheduling.frame_difference import FrameDifference
from vidseg_core.scheduling.history import HISTORY_LENGTH, DecisionHistory
from vidseg_core.scheduling.plan_window import PlanWindow
from vidseg_core.scheduling.planner import Planner
from vidseg_core.scheduling.policy import Policy
from vidseg_core.scheduling.protocol import Scheduler, WindowScheduler
from vidseg_core.scheduling.random_keys import RandomKeys
from vidseg_core.scheduling.warp_error import WarpError

SCHEDULERS = Registry(
    "scheduler",
    {
        "every": Every,
        "fixed": Fixed,
        "random": RandomKeys,
        "frame_difference": FrameDifference,
        "flow_magnitude": FlowMagnitude,
        "warp_error": WarpError,
        "policy": Policy,
        "confidence": Confidence,
        "confidence_sum": ConfidenceSum,
        "planner": Planner,
    },
)


def build_scheduler(name: str = "fixed", **options: Any) -> Any:
    """A `Scheduler` or a `WindowScheduler`, by registry name or `package.module:Class`.

    Options are the scheduler's own (`interval` in frames, `threshold` in the unit its docstring states).
    Unknown names and options raise UnknownNameError (a ValueError) that suggests the nearest.
    """
    return SCHEDULERS.build(name, **options)


__all__ = [
    "HISTORY_LENGTH",
    "SCHEDULERS",
    "Confidence",
    "ConfidenceSum",
    "DecisionHistory",
    "Deviation",
    "Every",
    "Fixed",
    "FlowMagnitude",
    "FrameDifference",
    "PlanWindow",
    "Planner",
    "Policy",
    "RandomKeys",
    "Scheduler",
    "WarpError",
    "WindowScheduler",
    "build_scheduler",
]
