"""Promise: work is shared out evenly, completely, and always in the same way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseg_core.plan import assign_branches


@given(st.lists(st.integers(0, 1000), max_size=60), st.integers(1, 9))
def test_everything_is_assigned_once_and_evenly(costs: list[int], branches: int) -> None:
    out = assign_branches(costs, branches)
    assert len(out) == branches
    assert sorted(position for branch in out for position in branch) == list(range(len(costs)))
    for branch in out:
        assert [costs[i] for i in branch] == sorted((costs[i] for i in branch), reverse=True)
    loads = [sum(costs[i] for i in branch) for branch in out]
    assert max(loads) - min(loads) <= max(costs, default=0)
    assert assign_branches(costs, branches) == out


def test_a_worked_example() -> None:
    assert assign_branches([5, 1, 9, 3, 3], 2) == [[2, 1], [0, 3, 4]]


def test_no_branch_is_refused() -> None:
    with pytest.raises(ValueError, match="branches"):
        assign_branches([1], 0)
