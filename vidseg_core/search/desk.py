"""One actor that all trials know by name: it holds the tables, once, and hears how trials stand.

Model: the actor loads the tables and puts them into Ray's object store; it owns them, so they live as long
as it does, and every trial maps the same read-only memory. Trials report their validation quality to it; the
median of the others at the same batch decides who goes on (the median stopping rule of Google Vizier, 2017,
section 3.2.1).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from vidseg_core.episodes.table_set import TableSet
from vidseg_core.training.split import open_tables

OTHERS = 4
"""Trials that must have come as far before anyone is judged."""
GRACE = 2
"""Validations that every trial may have."""


class Desk:
    """See the module; made an actor by `open_desk`."""

    def __init__(self, path: str, val_clips: Sequence[str], val_share: float, seed: int) -> None:
        import ray

        tables, validation = open_tables(path, val_clips, val_share, seed)
        self._held = {"tables": ray.put(tables), "validation": ray.put(validation)}
        self._best: dict[str, dict[int, float]] = {}
        self._told: dict[str, dict[str, Any]] = {}

    def references(self) -> dict[str, Any]:
        """The tables; give each to `ray.get`."""
        return self._held

    def falls_behind(self, trial: str, batch: int, quality: float) -> bool:
        """Note where a trial stands; is it below the median of those that were there before?"""
        mine = self._best.setdefault(trial, {})
        mine[batch] = max([quality, *(value for at, value in mine.items() if at < batch)])
        others = [best[batch] for name, best in self._best.items() if name != trial and batch in best]
        if len(others) < OTHERS or len(mine) <= GRACE:
            return False
        return mine[batch] < statistics.median(others)

    def tell(self, trial: str, outcome: dict[str, Any]) -> None:
        """A trial has ended."""
        self._told[trial] = outcome

    def told(self) -> list[dict[str, Any]]:
        """All that ended since this desk was opened."""
        return list(self._told.values())


def open_desk(name: str, path: str, val_clips: Sequence[str], val_share: float, seed: int) -> Any:
    """The actor, with the tables in the object store once."""
    import ray

    handle = ray.remote(Desk).options(name=name, num_cpus=0).remote(path, val_clips, val_share, seed)
    ray.get(handle.references.remote())
    return handle


def visit(name: str) -> tuple[Any, TableSet, TableSet]:
    """For a trial: the desk and the tables, mapped."""
    import ray

    desk = ray.get_actor(name)
    held: Any = ray.get(desk.references.remote())
    return desk, ray.get(held["tables"]), ray.get(held["validation"])
