"""How a result reaches a frame that is not a key frame: flow, warping, propagators, two sides."""

from __future__ import annotations

from vidseg_core.propagation.flow import FLOW_ESTIMATORS, DisFlow, FlowEstimator, build_flow
from vidseg_core.propagation.propagators import (
    LEVELS,
    PROPAGATORS,
    Copy,
    FlowWarp,
    Level,
    Propagator,
    build_propagator,
)
from vidseg_core.registry import Registry, UnknownNameError

__all__ = [
    "FLOW_ESTIMATORS",
    "LEVELS",
    "PROPAGATORS",
    "Copy",
    "DisFlow",
    "FlowEstimator",
    "FlowWarp",
    "Level",
    "Propagator",
    "Registry",
    "UnknownNameError",
    "build_flow",
    "build_propagator",
]
