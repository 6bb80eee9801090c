"""From families of schedulers to the choice: value a coarse set of points, then look closer where it matters.

Invariant: the same sample gives the same choice, whatever the order in which clips were valued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vidseg_core.calibration.choice import (
    Choice,
    Tables,
    Value,
    Valued,
    choose_by_budget,
    choose_by_drop,
    conclude,
    fits,
    last_kept,
    note_of,
)
from vidseg_core.calibration.schedulers import SHARES, Family, FixedFamily, Point
from vidseg_core.config.catalogue import EVERY

_NEAR_BUDGET = (1.0, 0.93, 0.85, 0.75, 0.6)
_BETWEEN = 4
"""Points between the last that keeps the promise and the first that does not."""


def search(
    found: Sequence[Family],
    value: Value,
    *,
    budget: float | None,
    max_drop: float | None,
    frames: Sequence[int],
    seed: int,
    net_s: float = 0.0,
    even: FixedFamily | None = None,
) -> Choice:
    """What to run; exactly one of `budget` (share of keys) and `max_drop` (points) is given. `even`: `fixed`
    on the sample, to be shown beside whatever is chosen."""
    if budget is not None:
        choice = _by_budget(found, value, budget, frames, seed, net_s)
    else:
        assert max_drop is not None
        choice = _by_drop(found, value, max_drop, frames, seed, net_s)
    if even is None or choice.settings["name"] == EVERY:
        return choice
    interval = even.near(choice.key_share) if budget is None else even.within(budget)
    (valued,) = value([even.at(min(even.longest, interval))])
    return replace(choice, even=_row(valued))


def _by_budget(
    found: Sequence[Family], value: Value, budget: float, frames: Sequence[int], seed: int, net_s: float
) -> Choice:
    shares = [budget * part for part in _NEAR_BUDGET]
    points = [point for family in found for point in family.points(shares)]
    fitting = [point for point in points if fits(point, budget, frames, seed)]
    asked, note = {"budget": budget}, ""
    if not fitting:
        least = min(points, key=lambda point: point.share)
        fitting = [least]
        forced = "one" if len(least.parts) == 1 else "a frame's worth of pixels"
        note = (
            f"no schedule tried has so few keys: --scheduler.max_interval forces {forced} in "
            f"{1 / least.share:.1f} frames or more often; the nearest is taken, and the budget is exceeded"
        )
    tables = _by_family(value(fitting))
    best = tables[fitting[0].family][0] if note else choose_by_budget(tables, budget, frames, seed)
    tried = [_row(max(valued, key=lambda item: item.quality_C.mean())) for valued in tables.values()]
    return conclude(best, asked=asked, frames=frames, seed=seed, note=note, net_s=net_s, tried=tried)


def _by_drop(
    found: Sequence[Family], value: Value, max_drop: float, frames: Sequence[int], seed: int, net_s: float
) -> Choice:
    coarse = [point for family in found for point in family.points(SHARES)]
    tables = _by_family(value(coarse))
    finer = [point for family in found for point in _closer(family, tables.get(family.name, []), max_drop)]
    if finer:
        tables = _by_family([item for valued in tables.values() for item in valued] + value(finer))
    best, kept, limit = choose_by_drop(tables, max_drop)
    tried = []
    for valued in tables.values():
        place = last_kept(valued, limit, np.arange(len(frames)))
        tried += [_row(valued[place])] if place >= 0 else []
    return conclude(
        best,
        asked={"max_drop": max_drop},
        frames=frames,
        seed=seed,
        note=note_of(best, len(frames)),
        held_out_kept=kept,
        net_s=net_s,
        tried=tried,
    )


def _closer(family: Family, valued: Sequence[Valued], max_drop: float) -> list[Point]:
    """Points between the last that keeps the promise and the next."""
    if not valued:
        return []
    place = last_kept(valued, max_drop, np.arange(len(valued[0].quality_C)))
    high = valued[place].point.share if place >= 0 else 1.0
    low = valued[min(place + 1, len(valued) - 1)].point.share
    shares = np.exp(np.linspace(np.log(high), np.log(low), _BETWEEN + 2))[1:-1]
    there = {_setting(item.point) for item in valued}
    return [point for point in family.points(shares.tolist()) if _setting(point) not in there]


def _by_family(items: Sequence[Valued]) -> Tables:
    tables: dict[str, list[Valued]] = {}
    for item in sorted(items, key=lambda item: -item.point.share):
        tables.setdefault(item.point.family, []).append(item)
    return tables


def _setting(point: Point) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(point.settings.items()))


def _row(item: Valued) -> Mapping[str, Any]:
    return {
        **item.point.settings,
        "key_share": item.point.share,
        "fidelity": 100 * float(item.quality_C.mean()),
        "worst_drop": float(item.drop_C.max()),
    }
