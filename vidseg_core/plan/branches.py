"""Work shared out over branches that run side by side.

Model: longest first, each piece to the branch with the least work so far (ties: the lower number).
Invariant: the same costs give the same assignment; every piece is assigned exactly once.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence


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
