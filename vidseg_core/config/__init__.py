"""Typed configuration: one schema for the command line and for YAML files."""

from __future__ import annotations

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import (
    MaskConfig,
    MediaConfig,
    PropagationConfig,
    RegionsConfig,
    SchedulerConfig,
    SegmentConfig,
    TtaConfig,
)

__all__ = [
    "ConfigError",
    "MaskConfig",
    "MediaConfig",
    "PropagationConfig",
    "RegionsConfig",
    "SchedulerConfig",
    "SegmentConfig",
    "TtaConfig",
]
