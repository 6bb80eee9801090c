"""Options of what happens between keys, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from vidseg_core.config.catalogue import (
    FLOWS,
    MEMORY_NETS,
    PLAIN_PROPAGATORS,
    is_of_stream,
    propagator_entry,
    propagator_words,
)
from vidseg_core.config.errors import check, check_choice, check_int, check_name

__all__ = ["PropagationConfig", "check_flow_size", "check_propagator"]

DELAY = 3
"""Frames that a net takes with low latency unless somebody says so."""


@dataclass(frozen=True, kw_only=True)
class PropagationConfig:
    """How a key's result reaches the frames between keys."""

    name: str = "flow_warp"
    """{propagators} or package.module:Class"""
    level: Literal["labels", "scores", "features"] = "labels"
    """what is carried of a key: its label map (fast), scores or features"""
    sides: Literal["one", "two"] = "two"
    """two: per pixel the better of the keys on both sides; one: the last key only"""
    flow: str = "dis"
    """dis (OpenCV), motion_vectors, tiny-flow, flownet_s, flownet2_s, spynet, raft or package.module:Class"""
    flow_weights: str | None = None
    """file with the flow net's weights; None: its own (tiny-flow's)"""
    flow_size: int = 256
    """longest side at which flow is computed, pixels; 32 to 4096"""
    weights: str | None = None
    """{trained}: a file of train-propagation"""
    latency: Literal["full", "low"] = "full"
    """low: keys show what is carried to them"""
    delay: int = DELAY
    """latency low: frames until a key's own result is used; 1 to 1000"""
    clock: int = 1
    """clockwork: frames from run to run of the levels between; 1: every frame"""
    self_check: bool = True
    """match, two sides: a segment's keys decide whether flow or the net fills its gaps"""
    adapt_steps: int = 0
    """self_check: steps in which the net gets used to a segment's first two keys (40 is good), a quarter as
    many at each later key; 0 to 1000"""

    HELP_GROUPS: ClassVar[Mapping[str, str]] = {"weights": "propagation: nets that fill gaps, and latency"}

    HELP_WORDS: ClassVar[Mapping[str, str]] = propagator_words()

    def __post_init__(self) -> None:
        check_name("--propagation.name", self.name, PLAIN_PROPAGATORS, MEMORY_NETS)
        check_choice("--propagation.level", self.level, ("labels", "scores", "features"))
        check_choice("--propagation.sides", self.sides, ("one", "two"))
        check_propagator(self.name, self.weights, self.level, self.sides)
        check_name("--propagation.flow", self.flow, FLOWS)
        if self.flow_weights is not None:
            check(bool(self.flow_weights.strip()), "--propagation.flow_weights", "must name a file")
            problem = f"{self.flow!r} is not a net and has no weights"
            check(self.flow not in FLOWS or bool(FLOWS[self.flow].net), "--propagation.flow_weights", problem)
        if is_of_stream(self.flow):
            problem = f"must be one with --propagation.flow {self.flow}, which lead back to the last key"
            check(self.sides == "one", "--propagation.sides", problem)
        check_flow_size(self.name, self.flow_size)
        check_choice("--propagation.latency", self.latency, ("full", "low"))
        check_int("--propagation.delay", self.delay, 1, 1000, "frame(s)")
        problem = f"{self.delay} goes with --propagation.latency low"
        check(self.latency == "low" or self.delay == DELAY, "--propagation.delay", problem)
        check_int("--propagation.clock", self.clock, 1, 1000, "frame(s)")
        entry = propagator_entry(self.name)
        clocked = self.clock == 1 or (entry is not None and entry.clocked)
        check(clocked, "--propagation.clock", f"{self.name!r} has no levels with rates of their own")
        problem = f"{self.clock} goes with --propagation.sides one: what a level said last is carried over"
        check(self.clock == 1 or self.sides == "one", "--propagation.clock", problem)
        problem = "low goes with --propagation.sides one: with two every frame waits for the next key anyway"
        check(self.latency == "full" or self.sides == "one", "--propagation.latency", problem)
        self._check_self_check()

    @property
    def checks_itself(self) -> bool:
        """Does a segment's self-check decide what fills its gaps?"""
        return self.name == "match" and self.sides == "two" and self.self_check

    def _check_self_check(self) -> None:
        check_int("--propagation.adapt_steps", self.adapt_steps, 0, 1000, "step(s)")
        problem = "goes with --propagation.name match, --propagation.sides two and --propagation.self_check"
        check(self.checks_itself or not self.adapt_steps, "--propagation.adapt_steps", problem)


def check_flow_size(name: str, flow_size: int) -> None:
    """`ConfigError` for a flow size that is none, or too large for a propagator of the package."""
    check_int("--propagation.flow_size", flow_size, 32, 4096, "pixels")
    entry = propagator_entry(name)
    most = entry.most_flow_size if entry is not None else flow_size
    problem = f"must be at most {most} for {name!r}, whose time and memory grow with its fourth power"
    check(flow_size <= most, "--propagation.flow_size", problem)


def check_propagator(name: str, weights: str | None, level: str, sides: str) -> None:
    """`ConfigError` for weights, level or sides that do not go with a propagator of the package."""
    entry = propagator_entry(name)
    if weights is not None:
        check(bool(weights.strip()), "--propagation.weights", "must name a file")
    if entry is None:
        return
    if entry.trained_by and not entry.file:
        problem = f"must name a file of {entry.trained_by} for {name!r}"
        check(weights is not None, "--propagation.weights", problem)
    elif not entry.trained_by:
        check(weights is None, "--propagation.weights", f"{name!r} has none")
    if entry.level:
        check(level == entry.level, "--propagation.level", f"must be {entry.level} for {name!r}")
    if entry.online:
        check(sides == "one", "--propagation.sides", f"must be one for {name!r}, which works online")
