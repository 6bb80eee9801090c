r"""How well does `tiny-planner` plan footage that it has not seen, and kinds of footage that it has not seen?

    python -m benchmarks.tiny_planner --tables DIR ... [--json FILE]

Each DIR is a set of tables of one kind of footage, all made with the same options by

    vidseg build-episodes --data DATA --output DIR --key_stride 3 --two_sided_stride 3 \
        --features scores --features flow

`clips`: each clip planned by a model that has learned from all sets but not from it. `kinds`: each set
planned by a model that has learned from the other sets alone. Window by window, one price for a set; the
share of the gap between even keys and the best possible schedule (the oracle) that it closes there, 90 % over
clips. The file in the package is what train-planner makes of the same sets together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from benchmarks.unseen import INTERVALS, LEARN, SIDES, Unseen, even_points, planner_points, row_of
from vidseg_core.episodes.oracle import one_sided_curve, two_sided_curve
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.models.planner import PlannerModel
from vidseg_core.training.planner_fit import Lesson, cross_fit, lesson_of
from vidseg_core.training.planner_job import open_sets


def rows_of(name: str, how: str, lessons: Sequence[Lesson], models: Sequence[PlannerModel]) -> list[Unseen]:
    """One set, each clip planned by the model beside it."""
    tables: list[EpisodeTable] = [lesson.table for lesson in lessons]
    mean_frames = float(np.mean([table.frames for table in tables]))
    rows = []
    for sides in SIDES:
        made = planner_points(models, lessons, lessons, models, sides)
        even = [even_points(table, sides) for table in tables]
        curve = one_sided_curve if sides == "one" else two_sided_curve
        curves = [curve(table) for table in tables]
        for interval in (n for n in INTERVALS if 2 * n <= mean_frames):
            rows.append(row_of(name, how, sides, interval, tables, made, even, curves))
    return rows


def measure(places: Sequence[str]) -> list[Unseen]:
    """All rows."""
    names = [Path(place).name for place in places]
    sets = [[lesson_of(t, LEARN.stride, t.horizon) for t in open_sets([place])] for place in places]
    together = [lesson for lessons in sets for lesson in lessons]
    models = cross_fit(together, folds=LEARN.folds, intervals=INTERVALS).fold_models
    rows: list[Unseen] = []
    first = 0
    for name, lessons in zip(names, sets, strict=True):
        here = slice(first, first := first + len(lessons))
        found = rows_of(name, "clips", lessons, models[here])
        others = together[: here.start] + together[here.stop :]
        if others:
            model = cross_fit(others, folds=LEARN.folds, intervals=INTERVALS).model
            found += rows_of(name, "kinds", lessons, [model] * len(lessons))
        print(show(found), flush=True)
        rows += found
    return rows


def show(rows: Sequence[Unseen]) -> str:
    """A line a row."""
    return "\n".join(
        f"{r.group:16} {r.scheduler:6} {r.sides:4} AKI {r.interval:3} | even {r.fixed:.3f} planner "
        f"{r.quality:.3f} oracle {r.oracle:.3f} | share {r.share:+5.0%} [{r.low:+5.0%}, {r.high:+5.0%}]"
        for r in rows
    )


def main() -> None:
    """Print the table, and write it when asked to."""
    parser = argparse.ArgumentParser(description="tiny-planner on footage that it has not seen.")
    parser.add_argument("--tables", nargs="+", required=True, help="folders that build-episodes wrote")
    parser.add_argument("--json", type=Path, help="write the rows there")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows = measure(options.tables)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
