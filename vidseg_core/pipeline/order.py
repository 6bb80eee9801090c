"""In which order a branch decodes: one segment after another, or ``lanes`` of them in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def interleave(segments: Sequence[Sequence[_T]], lanes: int) -> list[_T]:
    """Rows of ``segments`` (longest first), at most ``lanes`` of them open at a time, each giving a row in
    turn.

    With ``lanes == 1`` this is plain concatenation. A batch of ``lanes`` consecutive rows holds distinct
    segments as long as that many are open.
    """
    waiting, order = deque(deque(rows) for rows in segments if rows), []
    open_lanes: list[deque[_T]] = []
    while waiting or open_lanes:
        while waiting and len(open_lanes) < lanes:
            open_lanes.append(waiting.popleft())
        order.extend(lane.popleft() for lane in open_lanes)
        open_lanes = [lane for lane in open_lanes if lane]
    return order
