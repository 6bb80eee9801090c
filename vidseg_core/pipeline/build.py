"""From a configuration to a working engine: the one place where names become objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import torch

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.models.protocol import Segmenter
from vidseg_core.models.registry import build_segmenter
from vidseg_core.propagation.propagators import build_propagator
from vidseg_core.scheduling import Scheduler, build_scheduler

_TAKES_INTERVAL = frozenset({"fixed", "random"})


@dataclass(frozen=True, kw_only=True)
class NetFacts:
    """What the driver needs to know of N."""

    name: str
    class_names: Sequence[str]
    digest: str
    trained: bool
    note: str


def build_net(config: SegmentConfig, device: str) -> Segmenter:
    """N of the run on ``device``; ``SegmenterError`` says what is wrong with its name, file or classes."""
    return build_segmenter(
        config.segmenter,
        device=device,
        weights=config.weights,
        num_classes=config.num_classes,
        seed=config.seed,
        precision=config.dtype,
    )


def describe_net(config: SegmentConfig) -> NetFacts:
    """Build N once, on the CPU, to learn its classes and digest before anything starts."""
    net = build_net(config, "cpu")
    return NetFacts(
        name=net.name,
        class_names=tuple(net.class_names),
        digest=net.digest,
        trained=net.trained,
        note=net.note,
    )


def build_engine(config: SegmentConfig, device: str) -> Engine:
    """The engine of the run on ``device``. Threads of torch and OpenCV are set for this process.

    ``ConfigError`` for a scheduler, propagator or flow that is unknown or does not take its options.
    """
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)
    options = config.propagation
    try:
        return Engine(
            build_net(config, device),
            _scheduler(config.scheduler),
            build_propagator(options.name, level=options.level),
            sides=options.sides,
            max_interval=config.scheduler.max_interval,
            flow=options.flow,
            flow_size=options.flow_size,
            key_batch=config.key_batch,
            device=device,
        )
    except ValueError as problem:
        if isinstance(problem, ConfigError):
            raise
        raise ConfigError("--scheduler/--propagation", str(problem)) from problem


def new_state(config: SegmentConfig, video_id: str, segment: int) -> SegmentState:
    """The state before a segment's first frame; its name makes random schedules independent of the layout."""
    return SegmentState.new(config.seed, f"{video_id}/{segment}")


def _scheduler(config: SchedulerConfig) -> Scheduler:
    options: dict[str, Any] = {}
    if config.name in _TAKES_INTERVAL:
        options["interval"] = config.interval
    if config.threshold is not None:
        options["threshold"] = config.threshold
    return build_scheduler(config.name, **options)
