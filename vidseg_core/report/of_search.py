"""The section of a search: every trial by keys and quality, and the front that none of them beats.

A search is recognised by its `trials.parquet`, a row for each trial. Which columns are its axes is said by
their names (`COSTS`, `GAINS`), so that whatever wrote them need not know this page.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vidseg_core.report.page import Section, num, slug
from vidseg_core.report.style import COLOURS, Plot, legend
from vidseg_core.store.keys import TRIALS_KEY
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.small_files import read_table

COSTS: Mapping[str, str] = {
    "keys_per_frame": "keys per frame",
    "kar": "keys per frame",
    "key_share": "keys per frame",
    "aki": "keys per frame",
    "cost": "cost",
    "seconds": "seconds",
    "cpu_s": "CPU-s",
}
"""Less is better; `aki` is turned into keys per frame."""
GAINS: Mapping[str, str] = {
    "quality": "quality",
    "miou": "mIoU",
    "fidelity": "fidelity",
    "val_quality": "validation quality",
    "score": "score",
}
HEADS: Mapping[str, str] = {"aki": "AKI"}
DIGITS: Mapping[str, int] = {"aki": 1, "seconds": 1}
MOST_ROWS = 40


def is_search(store: ObjectStore) -> bool:
    return store.exists(TRIALS_KEY)


def sections(store: ObjectStore, suffix: str) -> tuple[list[Section], dict[str, str]]:
    """The Pareto front and the trials on it."""
    remedy = "the same vidseg tune writes it again"
    rows = read_table(store.get(TRIALS_KEY), f"{store.root}: {TRIALS_KEY}", remedy).to_pylist()
    names = list(rows[0]) if rows else []
    cost = next((name for name in COSTS if name in names), None)
    gain = next((name for name in GAINS if name in names), None)
    section = Section(f"Search{suffix}")
    section.text(f"{len(rows)} trials in {store.root}.")
    if cost is None or gain is None:
        why = f"{TRIALS_KEY} has none of {', '.join(COSTS)} or none of {', '.join(GAINS)}"
        return [section], {f"Pareto front{suffix}": why}
    pairs = [(_cost(row[cost], cost), row[gain], row) for row in rows]
    pairs = [(c, g, row) for c, g, row in pairs if _finite(c) and _finite(g)]
    if not pairs:
        return [section], {f"Pareto front{suffix}": "no trial has both numbers"}
    costs, gains = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    best = front(costs, gains)
    section.plot(
        _plot(costs, gains, best, COSTS[cost], GAINS[gain], f"search{slug(suffix)}"),
        "Every trial; the line joins those that no other trial beats in both.",
    )
    section.head("Trials on the front")
    shown = [pairs[place][2] for place in best[:MOST_ROWS]]
    plain = [
        name
        for name in names
        if name != "on_front"
        and not isinstance(rows[0][name], (list, dict, bytes))
        and any(row[name] not in (None, "", False) for row in shown)
    ]
    table = [[_text(row[name], name) for name in plain] for row in shown]
    texts = [place for place, name in enumerate(plain) if any(isinstance(row[name], str) for row in shown)]
    section.table([HEADS.get(name, name) for name in plain], table, texts=texts)
    return [section], {}


def front(costs: np.ndarray, gains: np.ndarray) -> list[int]:
    """Places that no other one beats (cost at most as high, gain at least as high, one of them better)."""
    order = np.lexsort((-gains, costs))
    chosen, best = [], -math.inf
    for place in order:
        if gains[place] > best:
            chosen.append(int(place))
            best = float(gains[place])
    return chosen


def _plot(costs: np.ndarray, gains: np.ndarray, best: Sequence[int], across: str, up: str, name: str) -> Plot:
    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        axes.scatter(costs, gains, s=18, color="#9aa4ad", label="trial")
        places = list(best)
        axes.plot(
            costs[places],
            gains[places],
            color=COLOURS[1],
            marker="D",
            drawstyle="steps-post",
            label="Pareto front",
        )
        axes.set_xlabel(f"{across} (less is better)")
        axes.set_ylabel(f"{up} (more is better)")
        legend(axes, narrow)

    return Plot(name=name, alt="Trials of a search and their Pareto front.", draw=draw)


def _cost(value: Any, name: str) -> float:
    if not _finite(value):
        return math.nan
    return 1.0 / value if name == "aki" and value > 0 else float(value)


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _text(value: Any, name: str) -> str:
    if value is None or isinstance(value, float):
        return num(value, DIGITS.get(name, 4))
    return textwrap.shorten(_options(value) if name == "options" else str(value), 300, placeholder=" …")


def _options(value: Any) -> str:
    """`scheduler.interval 27, ...` of a JSON object; anything else as it is."""
    try:
        found = json.loads(value)
        return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items())
    except (TypeError, ValueError, AttributeError):
        return str(value)
