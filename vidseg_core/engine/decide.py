"""Key or not: the engine's own rules first, then the scheduler's score (see `scheduling.protocol`).

Invariant: `is_key == (score > threshold)` for every frame of an online scheduler; no state is changed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vidseg_core.engine.flows import Flows
from vidseg_core.engine.look import FrameLook
from vidseg_core.engine.lows import Lows
from vidseg_core.engine.stats import EngineStats
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.protocol import Scheduler


@dataclass(slots=True, kw_only=True)
class Decision:
    """What was decided about one frame, and how it came about."""

    is_key: bool
    score: float
    kar: float
    lkd: int
    memory: float | None = None
    """What the scheduler wants to be given at the next frame; None: what it was given at this one."""


class Decider:
    """Decides about one frame of each lane; `scheduler` is None where keys are chosen ahead."""

    def __init__(
        self,
        scheduler: Scheduler | None,
        flows: Flows,
        lows: Lows,
        stats: EngineStats,
        max_interval: int,
    ) -> None:
        self._scheduler, self._flows, self._lows, self._stats = scheduler, flows, lows, stats
        self._max_interval = max_interval
        self._needs_low = bool(getattr(scheduler, "needs_low", False))

    @property
    def needs_flow(self) -> bool:
        """Are flows estimated before decisions are made?"""
        return self._scheduler is not None and self._scheduler.needs_flow

    def decide(self, looks: Sequence[FrameLook], chosen: Sequence[bool] | None) -> list[Decision]:
        """The decisions; `chosen` are those that are made already, where no rule comes before them."""
        decisions = [self._rule(look) for look in looks]
        if chosen is not None:
            decisions = [
                decision or _chosen(look, is_key)
                for decision, look, is_key in zip(decisions, looks, chosen, strict=True)
            ]
        if self.needs_flow:
            self._flows.online(not_key(looks, decisions))
        if self._needs_low:
            self._lows.see(not_key(looks, decisions))
        with self._stats.timed("decide"):
            return [decision or self._ask(look) for look, decision in zip(looks, decisions, strict=True)]

    def _rule(self, look: FrameLook) -> Decision | None:
        """The decision when no score is needed, else None."""
        key, kar = look.state.key, look.state.history.kar
        if key is None:
            return Decision(is_key=True, score=math.inf, kar=kar, lkd=0)
        lkd = look.state.next_frame - key.ordinal
        if lkd >= self._max_interval:
            return Decision(is_key=True, score=math.inf, kar=kar, lkd=lkd)
        avoids_corrupt = self._scheduler is None or self._scheduler.avoids_corrupt
        if avoids_corrupt and look.frame.is_corrupt:
            return Decision(is_key=False, score=-math.inf, kar=kar, lkd=lkd)
        if avoids_corrupt and key.is_corrupt:
            return Decision(is_key=True, score=math.inf, kar=kar, lkd=lkd)
        return None

    def _ask(self, look: FrameLook) -> Decision:
        state = look.state
        assert self._scheduler is not None and state.key is not None
        deviation = Deviation(
            current=lambda: look.gray,
            key=lambda: look.key_gray,
            flow=look.known_flow,
            ordinal=state.next_frame,
            frame_index=look.frame.frame_index,
            lkd=state.next_frame - state.key.ordinal,
            kar=state.history.kar,
            memory=state.memory,
            previous=None if state.last_view is None else look.previous_gray,
            low=look.known_low,
            key_low=look.key_low,
            pair_map=look.known_map,
            is_corrupt=look.frame.is_corrupt,
            seed=state.seed,
            segment=state.segment,
        )
        score = float(self._scheduler.score(deviation))
        if math.isnan(score):
            raise ValueError(f"scheduler {type(self._scheduler).__name__} gave a score that is no number")
        return Decision(
            is_key=score > self._scheduler.threshold,
            score=score,
            kar=deviation.kar,
            lkd=deviation.lkd,
            memory=deviation.remembered,
        )


def not_key(looks: Sequence[FrameLook], decisions: Sequence[Decision | None]) -> list[FrameLook]:
    """The frames that are not known to be keys."""
    return [look for look, d in zip(looks, decisions, strict=True) if d is None or not d.is_key]


def _chosen(look: FrameLook, is_key: bool) -> Decision:
    """The decision of a scheduler that looks ahead."""
    state = look.state
    assert state.key is not None
    lkd = state.next_frame - state.key.ordinal
    return Decision(is_key=is_key, score=float(is_key), kar=state.history.kar, lkd=lkd)
