"""Counters of an engine: what was done and where the time went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STAGES = ("view", "flow", "lookahead", "low", "decide", "net", "propagate")


Clock = Callable[[], float]
"""Seconds since some moment."""


def clock_of(device: str) -> Clock:
    """CPU seconds of this process, so that other load is no cost; of the wall where a GPU works meanwhile."""
    return time.process_time if device == "cpu" else time.perf_counter


@dataclass(slots=True)
class EngineStats:
    """Totals since the engine was made. Restoring a state's key is timed under `net` but is no key."""

    frames: int = 0
    """Frames stepped over."""
    keys: int = 0
    """Frames that became keys: frames on which N was asked for."""
    flows: int = 0
    """Flow fields estimated."""
    followed: int = 0
    """Flow fields that motion vectors gave, of those that were asked for."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Seconds of `clock` by stage."""
    clock: Clock = time.perf_counter
    _inside: float = 0.0
    """Seconds of stages within the one that is being timed, which are not its own."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        before, self._inside, start = self._inside, 0.0, self.clock()
        try:
            yield
        finally:
            spent = self.clock() - start
            self.seconds[stage] += spent - self._inside
            self._inside = before + spent
