"""Cells: several streaming executors side by side, each a Ray task that drives some of a wave's branches.

Model: one executor hands on some dozens of shards a second, however large the cluster is. Beyond
``MAX_BRANCHES`` engine workers the branches of a wave are dealt over cells. A cell owns its decoders and
engines and streams their receipts to the driver, whose bookkeeping does not know that there are cells. It
asks for no CPU itself, so that cells never wait for each other's decoders.

Invariant: a cell that dies (its process, its node) takes its own branches with it and nothing else. It is not
run again as it was: what it has committed stays, and whoever reads the receipts plans the rest anew.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from vidseg_core.pipeline.branches import BranchPlan, Layout, run_branches


class Cells:
    """The cells of one wave."""

    def __init__(self, plans: Sequence[BranchPlan], layout: Layout) -> None:
        self._plans, self._layout = plans, layout
        self.lost: list[Exception] = []
        """Why cells died, one entry each."""

    def receipts(self) -> Generator[pa.Table]:
        """Receipts of all branches as they come. Closing it ends the cells."""
        cells = min(self._layout.sizing.cells, len(self._plans))
        if cells == 1:  # the driver drives its branches itself
            yield from run_branches(self._plans, self._layout)
            return
        running: list[Any] = [_cell.remote(self._plans[n::cells], self._layout) for n in range(cells)]
        try:
            while running:
                ready, _ = ray.wait(running, num_returns=1, fetch_local=False)
                cell: Any = ready[0]
                try:
                    yield ray.get(next(cell))
                except StopIteration:
                    running.remove(cell)
                except RayTaskError:
                    raise
                except RayError as problem:
                    self.lost.append(problem)
                    running.remove(cell)
        finally:
            for cell in running:
                ray.cancel(cell, force=True)


@ray.remote(num_cpus=0, max_retries=0, scheduling_strategy="SPREAD")
def _cell(plans: Sequence[BranchPlan], layout: Layout) -> Iterator[pa.Table]:
    yield from run_branches(plans, layout)
