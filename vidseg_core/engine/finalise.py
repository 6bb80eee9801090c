"""From waiting frames to final masks: flow, propagation from one side or two, N_task where it is needed.

Legend: h, w flow size; H, W working size; 2 = (u, v).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidseg_core.engine.flows import Flows
from vidseg_core.engine.frames import FrameResult
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.state import KeyFrame, PendingFrame
from vidseg_core.engine.stats import EngineStats
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.propagators import Propagator
from vidseg_core.propagation.two_sided import better_side, carry_along, side_of


@dataclass(slots=True, kw_only=True)
class Gap:
    """Consecutive frames of one lane that become final together: all after `left`, up to `right` if known."""

    frames: list[PendingFrame]
    left: KeyFrame
    right: KeyFrame | None


@dataclass(slots=True, kw_only=True)
class _Sides:
    frame: PendingFrame
    left: KeyFrame
    left_link: Link
    right: KeyFrame | None = None
    right_link: Link | None = None


class Finaliser:
    """Turns gaps into results; holds no state of a segment."""

    def __init__(self, net: ChunkedNet, propagator: Propagator, flows: Flows, stats: EngineStats) -> None:
        self._net, self._propagator, self._flows, self._stats = net, propagator, flows, stats

    def run(self, gaps: Sequence[Gap | None]) -> list[list[FrameResult]]:
        """For each lane the final results of its gap (none without a gap), in frame order."""
        lanes = [[] if gap is None else _sides_of(gap) for gap in gaps]
        if self._propagator.needs_flow:
            lefts = [[sides.left_link for sides in lane] for lane in lanes]
            rights = [[s.right_link for s in reversed(lane) if s.right_link is not None] for lane in lanes]
            self._flows.complete([*lefts, *rights])
        flat = [sides for lane in lanes for sides in lane]
        results: list[FrameResult] = []
        with self._stats.timed("propagate"):
            for start in range(0, len(flat), self._net.batch):
                chunk = flat[start : start + self._net.batch]
                labels = self._net.labels([self._carry(sides) for sides in chunk])
                settled = [self._net.settle(mask) for mask in labels]
                results += [_result(s.frame, s.left, *mask) for s, mask in zip(chunk, settled, strict=True)]
        rest = iter(results)
        return [[next(rest) for _ in lane] for lane in lanes]

    def _carry(self, sides: _Sides) -> Any:
        propagator = self._propagator
        left = carry_along(propagator, sides.left.carried, sides.left_link)
        if sides.right is None or sides.right_link is None:
            return left
        right = carry_along(propagator, sides.right.carried, sides.right_link)
        return better_side(
            side_of(propagator, left, sides.left_link), side_of(propagator, right, sides.right_link)
        )


def _sides_of(gap: Gap) -> list[_Sides]:
    lane = []
    for frame in gap.frames:
        left_link = Link(current=frame.view, key=gap.left.view, distance=frame.lkd, flow_hw2=frame.flow_hw2)
        sides = _Sides(frame=frame, left=gap.left, left_link=left_link)
        if gap.right is not None:
            distance = gap.right.ordinal - gap.left.ordinal - frame.lkd
            sides.right = gap.right
            sides.right_link = Link(current=frame.view, key=gap.right.view, distance=distance)
        lane.append(sides)
    return lane


def _result(
    frame: PendingFrame, left: KeyFrame, labels_HW: np.ndarray, confidence: float, share: float
) -> FrameResult:
    return FrameResult(
        frame_index=frame.frame_index,
        pts_s=frame.pts_s,
        is_key=False,
        key_frame_index=left.frame_index,
        decision_score=frame.decision_score,
        kar=frame.kar,
        lkd=frame.lkd,
        is_corrupt=frame.is_corrupt,
        labels_HW=labels_HW,
        confidence=confidence,
        confident_share=share,
    )
