"""Counters of an engine: what was done and where the time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STAGES = ("view", "flow", "lookahead", "decide", "net", "propagate")


@dataclass(slots=True)
class EngineStats:
    """Totals since the engine was made. Restoring a state's key is timed under `net` but is no key."""

    frames: int = 0
    """Frames stepped over."""
    keys: int = 0
    """Frames that became keys: frames on which N was asked for."""
    flows: int = 0
    """Flow fields estimated."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Wall-clock seconds by stage."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start
