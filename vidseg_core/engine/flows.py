"""All flow of an engine goes through here: one call of the estimator for all lanes, counted and timed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidseg_core.engine.look import FrameLook
from vidseg_core.engine.stats import EngineStats
from vidseg_core.propagation.chain import Link, Pair, complete, improve
from vidseg_core.propagation.flow import FlowEstimator, check_flows


class Flows:
    """The estimator, helped by the frame before where it says that this pays."""

    def __init__(self, estimator: FlowEstimator, stats: EngineStats) -> None:
        self.estimator, self._stats = estimator, stats

    def online(self, looks: Sequence[FrameLook]) -> None:
        """The flow of each frame to its last key, helped by the frame before."""
        links = [look.link() for look in looks]
        with self._stats.timed("flow"):
            direct = self._estimate([(link.current, link.key) for link in links])
            before = [look.state.last_flow_hw2 if self.estimator.chained else None for look in looks]
            improve(links, direct, before, self._estimate)
        for look, link in zip(looks, links, strict=True):
            look.flow_hw2 = link.flow_hw2

    def complete(self, chains: Sequence[Sequence[Link]]) -> None:
        """The flows that chains of waiting frames still lack."""
        with self._stats.timed("flow"):
            complete(chains, self._estimate, chained=self.estimator.chained)

    def _estimate(self, pairs: Sequence[Pair]) -> list[np.ndarray]:
        if not pairs:
            return []
        self._stats.flows += len(pairs)
        pictures = [current for current, _ in pairs]
        flows = self.estimator.flow(pictures, [key for _, key in pairs])
        check_flows(flows, pictures, type(self.estimator).__name__)
        return flows
