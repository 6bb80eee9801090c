"""The keys of a planner on a table's segment, window by window as the engine plans, at any number of prices.

Invariant: what a window is worth depends on where it begins alone, never on the price; so it is computed once
per beginning, and the keys are those of `plan_segment` with a fresh plan for each.
"""

from __future__ import annotations

import numpy as np

from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.scheduling.plan_window import PlanWindow, plan_segment
from vidseg_core.scheduling.planner import PlannerCore


class PlannedTable:
    """A planner on one segment; the table must hold pictures."""

    def __init__(
        self, core: PlannerCore, table: EpisodeTable, *, two_sided: bool, max_interval: int | None = None
    ) -> None:
        """`max_interval`: as the job's; None: what model and table allow."""
        assert table.grays_Thw is not None and table.masks_Thw is not None
        self._core, self._two_sided = core, two_sided
        self._grays, self._masks = list(table.grays_Thw), table.masks_Thw
        most = table.horizon if max_interval is None else max_interval
        self._most = min(core.facts.longest, most)
        self._worth: dict[int, np.ndarray] = {}

    def keys(self, price: float) -> np.ndarray:
        """int64, the first 0."""
        begins = 0

        def labels(frame: int) -> np.ndarray:
            nonlocal begins
            begins = frame  # a window is asked for its key's mask before it is planned
            return self._masks[frame]

        def plan(window: PlanWindow) -> list[int]:
            if begins not in self._worth:
                self._worth[begins] = self._core.worth(window)
            return self._core.pick(self._worth[begins], window, price)

        found = plan_segment(
            plan,
            self._core.facts.window,
            self._core.facts.stride,
            self._grays,
            labels,
            two_sided=self._two_sided,
            max_interval=self._most,
        )
        return np.array(found, np.int64)
