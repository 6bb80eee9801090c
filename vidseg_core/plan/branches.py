"""Work shared out over branches that run side by side, and the order in which a branch decodes.

Model: longest first, each piece to the branch with the least work so far (ties: the lower number). A branch
takes one segment after another, or ``lanes`` of them in turn.
Invariant: the same costs give the same assignment; every piece is assigned exactly once.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def assign_branches(costs: Sequence[int], branches: int) -> list[list[int]]:
    """Positions in `costs` for each branch, longest first. Raises ValueError if there is no branch."""
    if branches < 1:
        raise ValueError(f"branches must be at least 1, got {branches}")
    out: list[list[int]] = [[] for _ in range(branches)]
    loads = [(0, branch) for branch in range(branches)]
    for position in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, branch = heapq.heappop(loads)
        out[branch].append(position)
        heapq.heappush(loads, (load + costs[position], branch))
    return out


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
