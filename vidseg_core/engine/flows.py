"""All flow of an engine goes through here: one call of the estimator for all lanes, counted and timed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidseg_core.engine.look import FrameLook
from vidseg_core.engine.stats import EngineStats
from vidseg_core.propagation.chain import Link, complete, first_guess
from vidseg_core.propagation.flow import FlowEstimator


class Flows:
    """The estimator, with first guesses where it uses them."""

    def __init__(self, estimator: FlowEstimator, stats: EngineStats) -> None:
        self.estimator, self._stats = estimator, stats

    def online(self, looks: Sequence[FrameLook]) -> None:
        """The flow of each frame to its last key, started from the frame before."""
        links = [look.link() for look in looks]
        with self._stats.timed("flow"):
            guesses = [
                first_guess(link, look.state.last_flow_hw2) if self.estimator.uses_start else None
                for link, look in zip(links, looks, strict=True)
            ]
            for look, flow_hw2 in zip(looks, self._estimate(links, guesses), strict=True):
                look.flow_hw2 = flow_hw2

    def complete(self, chains: Sequence[Sequence[Link]]) -> None:
        """The flows that chains of waiting frames still lack."""
        with self._stats.timed("flow"):
            complete(chains, self._estimate, in_turn=self.estimator.uses_start)

    def _estimate(self, links: Sequence[Link], guesses: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        if not links:
            return []
        self._stats.flows += len(links)
        return self.estimator.flow([link.current for link in links], [link.key for link in links], guesses)
