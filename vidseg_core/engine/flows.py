"""All flow of an engine goes through here: one call of the estimator for all lanes, counted and timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidseg_core.engine.look import FrameLook
from vidseg_core.engine.stats import EngineStats
from vidseg_core.propagation.chain import Link, Pair, complete, improve
from vidseg_core.propagation.flow import FlowEstimator, check_flows
from vidseg_core.propagation.motion import flow_to_key, references_after


class Flows:
    """The estimator, helped by the frame before where it says that this pays.

    Where it reads motion (`propagation.motion`), only what a frame's stream does not say is estimated.
    `layers`: of the flow net, whose maps the scheduler reads; they come with the flow.
    """

    def __init__(self, estimator: FlowEstimator, stats: EngineStats, layers: Sequence[str] = ()) -> None:
        self.estimator, self._stats, self._layers = estimator, stats, layers
        self.reads_motion = bool(getattr(estimator, "reads_motion", False))

    def online(self, looks: Sequence[FrameLook]) -> None:
        """The flow of each frame to its last key, helped by the frame before."""
        with self._stats.timed("flow"):
            asked = len(looks)
            looks = [look for look in looks if not (self.reads_motion and self._follow(look))]
            self._stats.followed += asked - len(looks)
        links = [look.link() for look in looks]
        with self._stats.timed("flow"):
            direct = self._direct(looks, links)
            before = [look.state.last_flow_hw2 if self.estimator.chained else None for look in looks]
            improve(links, direct, before, self._estimate)
        for look, link in zip(looks, links, strict=True):
            look.flow_hw2 = link.flow_hw2

    def complete(self, chains: Sequence[Sequence[Link]]) -> None:
        """The flows that chains of waiting frames still lack."""
        with self._stats.timed("flow"):
            complete(chains, self._estimate, chained=self.estimator.chained)

    def references(self, look: FrameLook, *, is_key: bool) -> dict[int, np.ndarray | None]:
        """What of the segment later frames may refer to, once this frame is stepped over."""
        if not self.reads_motion or (look.flow_hw2 is None and not is_key):
            return {}
        if look.flow_hw2 is None and look.state.references:
            self._follow(look)
        frame, known = look.frame, look.state.references
        return references_after(frame.motion(), frame.frame_index, known, look.flow_hw2, is_key=is_key)

    def _follow(self, look: FrameLook) -> bool:
        """Take the flow from the stream, if that says it."""
        frame, (height, width) = look.frame, look.view_shape[:2]
        known = look.state.references
        look.flow_hw2 = flow_to_key(frame.motion(), frame.frame_index, known, (height, width))
        return look.flow_hw2 is not None

    def _direct(self, looks: Sequence[FrameLook], links: Sequence[Link]) -> list[np.ndarray]:
        pairs = [(link.current, link.key) for link in links]
        if not self._layers or not pairs:
            return self._estimate(pairs)
        self._stats.flows += len(pairs)
        estimator: Any = self.estimator
        flows, maps = estimator.flow_and_maps(*map(list, zip(*pairs, strict=True)), self._layers)
        for look, maps_of_pair in zip(looks, maps, strict=True):
            look.maps = maps_of_pair
        return flows

    def _estimate(self, pairs: Sequence[Pair]) -> list[np.ndarray]:
        if not pairs:
            return []
        self._stats.flows += len(pairs)
        pictures = [current for current, _ in pairs]
        flows = self.estimator.flow(pictures, [key for _, key in pairs])
        check_flows(flows, pictures, type(self.estimator).__name__)
        return flows
