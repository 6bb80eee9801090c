"""Operating points of a planner: prices, and what they come to window by window.

Model: each clip has a model that has not seen it, window by window with the masks of its keys
alone, as `segment` does. The price for an interval is first read off schedules in one piece, then corrected
by what windows make of it. Interval and quality are those of all clips together.

Legend: see `planner_fit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vidseg_core.episodes.on_tables import LookaheadTable
from vidseg_core.models.planner import PlannerFacts, PlannerModel, PricePoint
from vidseg_core.scheduling.planner import PlannerCore
from vidseg_core.training.planner_fit import Lesson, price_at, priced, value_of

ROUNDS = 2
"""Times that a price is corrected."""
CLOSE = 0.05
"""An interval this near to the one that was asked for, relatively, needs no correction."""


def operating_points(
    models: Sequence[PlannerModel],
    lessons: Sequence[Lesson],
    facts: PlannerFacts,
    intervals: Sequence[float],
    say: Callable[[PricePoint], None] = lambda point: None,
) -> tuple[PricePoint, ...]:
    """The points for intervals that the window allows, one-sided and, where tables know, two-sided."""
    frames = sum(lesson.table.frames for lesson in lessons)
    counted = sum(lesson.counted for lesson in lessons)
    two = all(lesson.between_JE is not None for lesson in lessons)
    cores = [PlannerCore(model, facts) for model in models]
    points = []
    for two_sided in (False, True) if two else (False,):
        found = priced(models, lessons, two_sided)
        walked = [
            LookaheadTable(core, lesson.table, two_sided=two_sided)
            for core, lesson in zip(cores, lessons, strict=True)
        ]
        for target in (aki for aki in intervals if aki <= facts.longest):
            wanted = frames / target
            best: PricePoint | None = None
            aim = wanted
            for _ in range(1 + ROUNDS):
                price = price_at(found, aim)
                made = [segment.keys(price) for segment in walked]
                keys = sum(len(part) for part in made)
                total = sum(value_of(x.table, part, two_sided) for x, part in zip(lessons, made, strict=True))
                point = PricePoint(
                    target=float(target),
                    sides="two" if two_sided else "one",
                    threshold=price,
                    aki=frames / keys,
                    quality=total / max(1, counted),
                )
                if best is None or abs(np.log(point.aki / target)) < abs(np.log(best.aki / target)):
                    best = point
                if abs(keys / wanted - 1.0) <= CLOSE:
                    break
                aim *= wanted / keys
            assert best is not None
            points.append(best)
            say(best)
    return tuple(points)
