"""What there is to do: every method on every clip, each with the key of its result."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseg_core.config.catalogue import plugin_module
from vidseg_core.config.methods import MethodConfig
from vidseg_core.episodes.store import encode_table, load_tables
from vidseg_core.evaluation.cells import stamp_of
from vidseg_core.evaluation.clips import Clip
from vidseg_core.models.digest import digest_file
from vidseg_core.models.planner import is_planner, planner_digest
from vidseg_core.propagation.propagators import weights_digest
from vidseg_core.store.keys import CellKey

PER_TASK = 8
"""Methods that a task puts a clip through; decoding, N and the flow between neighbours are shared by them."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method on one clip."""

    clip: Clip
    method: MethodConfig
    key: CellKey


def plan(clips: Sequence[Clip], methods: Sequence[MethodConfig], tables: str | None = None) -> list[Cell]:
    """Every cell, clip by clip. `tables`: what an oracle reads; other tables are another cell."""
    extra = {method.digest: _files_of(method) for method in methods}
    read = _tables_of(tables) if tables is not None and any(m.is_oracle for m in methods) else {}
    return [
        Cell(
            clip=clip,
            method=method,
            key=CellKey(
                clip.name,
                method.digest,
                stamp_of(
                    clip.stamp,
                    extra[method.digest] | (read.get(clip.name, {}) if method.is_oracle else {}),
                ),
            ),
        )
        for clip in clips
        for method in methods
    ]


def _files_of(method: MethodConfig) -> dict[str, str]:
    """Digests of what a method reads: a policy, weights of a flow, the source of a plug-in."""
    carried = method.propagation
    paths = {
        "policy": method.scheduler.policy,
        "flow_weights": carried.flow_weights,
    }
    for what, name in (
        ("scheduler", method.scheduler.name),
        ("propagator", method.propagation.name),
        ("flow", method.propagation.flow),
    ):
        if module := plugin_module(name):
            paths[what] = getattr(importlib.import_module(module), "__file__", None)
    policy = paths["policy"]
    planner = {"policy": planner_digest(policy)} if policy and is_planner(policy) else {}
    files = {what: path for what, path in paths.items() if path and what not in planner}
    weights = weights_digest(carried)
    found = {what: digest_file(Path(path)) for what, path in files.items()}
    return planner | found | ({"weights": weights} if weights else {})


def _tables_of(path: str) -> dict[str, dict[str, str]]:
    """Clip -> digests of its tables; `EpisodeError` if there are none."""
    found: dict[str, dict[str, str]] = {}
    for table in load_tables(path):
        digest = hashlib.sha256(encode_table(table)).hexdigest()
        found.setdefault(table.clip, {})[f"table-{table.segment}"] = digest
    return found


def chunks(todo: Sequence[Cell], slots: int, *, asks_net: bool) -> list[list[Cell]]:
    """Tasks: a clip under some of its methods, at most `PER_TASK`, fewer where that keeps `slots` busy.

    First one task of every clip, the longest clips first: with a net (`asks_net`) it leaves N's masks for the
    others, which come later; then a clip is cut no further than it must.
    """
    by_clip: dict[str, list[Cell]] = {}
    for cell in todo:
        by_clip.setdefault(cell.clip.name, []).append(cell)
    tasks: list[tuple[int, int, list[Cell]]] = []
    for cells in by_clip.values():
        busy = 1 if asks_net else -(-2 * slots // len(by_clip))
        pieces = min(len(cells), max(busy, -(-len(cells) // PER_TASK)))
        parts = [cells[number::pieces] for number in range(pieces)]
        tasks += [(number, -part[0].clip.frames, part) for number, part in enumerate(parts)]
    return [part for _, _, part in sorted(tasks, key=lambda task: task[:2])]


def quarantined(cell: Cell, reason: str, message: str) -> dict[str, Any]:
    """The row of a cell that cannot be measured."""
    return {
        "clip": cell.clip.name,
        "method": cell.method.name,
        "method_id": cell.method.digest,
        "source": cell.clip.source,
        "reason": reason,
        "message": message,
    }
