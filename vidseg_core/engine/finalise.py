"""From waiting frames to final masks: flow, propagation from one side or two, N_task where it is needed.

Legend: h, w flow size; H, W working size; 2 = (u, v).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from vidseg_core.engine.flows import Flows
from vidseg_core.engine.frames import FrameResult
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.state import KeyFrame, PendingFrame
from vidseg_core.engine.stats import EngineStats
from vidseg_core.propagation.chain import Link
from vidseg_core.propagation.filler import Filler
from vidseg_core.propagation.gap import Gap, GapFrame, Memory


@dataclass(slots=True, kw_only=True)
class Due:
    """Consecutive frames of one lane that become final together: all after `left`, up to `right` if known."""

    frames: list[PendingFrame]
    left: KeyFrame
    right: KeyFrame | None
    memory: Memory
    """What the propagator carried over from the frame before; afterwards, from the last of these."""
    filled: Any = None
    """Afterwards: what is carried to the last of these frames."""


class Finaliser:
    """Turns frames that are due into results; holds no state of a segment."""

    def __init__(self, net: ChunkedNet, filler: Filler, flows: Flows, stats: EngineStats) -> None:
        self._net, self._filler, self._flows, self._stats = net, filler, flows, stats

    def run(self, lanes: Sequence[Due | None]) -> list[list[FrameResult]]:
        """For each lane the final results of its frames (none where nothing is due), in order."""
        due = [lane for lane in lanes if lane is not None]
        if not due:
            return [[] for _ in lanes]
        gaps = [_gap_of(lane) for lane in due]
        if self._filler.needs_flow:
            lefts = [[frame.left for frame in gap.frames] for gap in gaps]
            rights = [[f.right for f in reversed(gap.frames) if f.right is not None] for gap in gaps]
            self._flows.complete([*lefts, *rights])
        frames = iter(
            [(lane, gap, frame) for lane, gap in zip(due, gaps, strict=True) for frame in lane.frames]
        )
        results: list[FrameResult] = []
        with self._stats.timed("propagate"):
            filled = self._filler.fill(gaps)
            while chunk := list(islice(filled, self._net.batch)):
                settled = [self._net.settle(mask) for mask in self._net.labels(chunk)]
                for carried, mask in zip(chunk, settled, strict=True):
                    lane, gap, frame = next(frames)
                    lane.filled = carried
                    results.append(_result(frame, lane.left, *mask, gap.filled_by))
        for lane, gap in zip(due, gaps, strict=True):
            lane.memory = gap.memory
        rest = iter(results)
        return [[] if lane is None else [next(rest) for _ in lane.frames] for lane in lanes]

    def at_key(self, key: KeyFrame, memory: Memory) -> tuple[np.ndarray, Memory]:
        """labels_HW that a new key shows, and what is carried over; for propagators that answer keys."""
        with self._stats.timed("propagate"):
            shown, memory = self._filler.at_key(key, memory)
            (labels_HW,) = self._net.labels([shown])
        return labels_HW, memory


def _gap_of(due: Due) -> Gap:
    frames = []
    for frame in due.frames:
        left = Link(current=frame.view, key=due.left.view, distance=frame.lkd, flow_hw2=frame.flow_hw2)
        right = None
        if due.right is not None:
            distance = due.right.ordinal - due.left.ordinal - frame.lkd
            right = Link(current=frame.view, key=due.right.view, distance=distance)
        frames.append(GapFrame(left=left, right=right, rgb_HW3=frame.rgb_HW3, low_maps=frame.low_maps))
    return Gap(left=due.left, frames=frames, right=due.right, memory=dict(due.memory))


def _result(
    frame: PendingFrame,
    left: KeyFrame,
    labels_HW: np.ndarray,
    confidence: float,
    share: float,
    filled_by: str,
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
        filled_by=filled_by,
    )
