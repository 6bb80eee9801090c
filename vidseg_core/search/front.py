"""The Pareto front of a search, its tables and its picture.

Model: an outcome beats another when its quality and its key interval are at least as good and one is better;
the front is what none beats. Finalists are policies of the front, spread evenly over its key intervals.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.store.atomic import write_whole
from vidseg_core.store.keys import PARETO_KEY, TRIALS_KEY

PICTURE = "pareto.png"
TRIALS_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("space", pa.string()),
        ("verb", pa.string()),
        ("quality", pa.float64()),
        ("aki", pa.float64()),
        ("on_front", pa.bool_()),
        ("batches", pa.int64()),
        ("stopped", pa.string()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
        ("options", pa.string()),
    ]
)
"""`quality`, `aki`: on the validation clips; null where the trial could not be made (`error`). `stopped`:
median or entropy where it was ended early. `options`: JSON, dotted option -> value."""
PARETO_SCHEMA = pa.schema(
    [
        *[field for field in TRIALS_SCHEMA if field.name not in ("on_front", "error")],
        ("finalist", pa.string()),
        ("final_quality", pa.float64()),
        ("final_aki", pa.float64()),
        ("final_threshold", pa.float64()),
    ]
)
"""The front by rising key interval; `finalist`: folder of the policy that was trained in full, and what it
reaches on the validation clips at the trial's key interval."""

Outcome = Mapping[str, Any]


def front(outcomes: Sequence[Outcome]) -> list[int]:
    """Places of the outcomes that none beats, key intervals rising."""
    usable = [place for place, outcome in enumerate(outcomes) if not outcome["error"]]
    found, best = [], -np.inf
    for place in sorted(usable, key=lambda p: (-outcomes[p]["aki"], -outcomes[p]["quality"])):
        if outcomes[place]["quality"] > best:
            found.append(place)
            best = outcomes[place]["quality"]
    return found[::-1]


def choose_finalists(outcomes: Sequence[Outcome], count: int) -> list[int]:
    """Policies of the front, evenly spread over its key intervals."""
    policies = [place for place in front(outcomes) if outcomes[place]["verb"] == "train-policy"]
    if len(policies) <= count:
        return policies
    spread = np.linspace(0, len(policies) - 1, count + 2)[1:-1].round().astype(int) if count else []
    return [policies[i] for i in dict.fromkeys(int(i) for i in spread)]


def write_trials(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """`trials.parquet`: everything that was tried."""
    best = set(front(outcomes))
    rows = []
    for place, outcome in enumerate(outcomes):
        row = _row(outcome) | {"on_front": place in best}
        rows.append(row | ({"quality": None, "aki": None} if outcome["error"] else {}))
    _write(folder / TRIALS_KEY, rows, TRIALS_SCHEMA)


def write_front(folder: Path, outcomes: Sequence[Outcome], finals: Mapping[str, Mapping[str, Any]]) -> None:
    """`pareto.parquet` and its picture; `finals`: by trial what became of it."""
    rows = [_row(outcomes[place]) | finals.get(outcomes[place]["trial"], {}) for place in front(outcomes)]
    _write(folder / PARETO_KEY, rows, PARETO_SCHEMA)
    write_whole(folder / PICTURE, picture(outcomes, list(finals.values())))


def picture(outcomes: Sequence[Outcome], finals: Sequence[Mapping[str, Any]]) -> bytes:
    """PNG: every trial by key interval and quality, a colour per space, the front, the finalists."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    from vidseg_core.report.curves import TICKS
    from vidseg_core.report.style import COLOURS, MARKERS, Plot, legend, plain

    shown = [outcome for outcome in outcomes if not outcome["error"]]
    best = [outcomes[place] for place in front(outcomes)]

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for number, space in enumerate(sorted({outcome["space"] for outcome in shown})):
            mine = [outcome for outcome in shown if outcome["space"] == space]
            axes.scatter(
                [outcome["aki"] for outcome in mine],
                [outcome["quality"] for outcome in mine],
                s=22,
                marker=MARKERS[number % len(MARKERS)],
                color=COLOURS[(number + 1) % len(COLOURS)],
                label=plain(space),
            )
        axes.plot(
            [o["aki"] for o in best],
            [o["quality"] for o in best],
            color=COLOURS[0],
            label="front",
            drawstyle="steps-pre",
        )
        known = [final for final in finals if final.get("final_aki")]
        if known:
            x, y = [f["final_aki"] for f in known], [f["final_quality"] for f in known]
            axes.scatter(x, y, s=90, marker="*", color="black", label="trained in full", zorder=3)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(TICKS))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("average key interval, frames (more is better)")
        axes.set_ylabel("quality on the validation clips")
        legend(axes, narrow)

    return Plot(name="pareto", alt="Trials by key interval and quality.", draw=draw).save("png")


def _row(outcome: Outcome) -> dict[str, Any]:
    return {**outcome, "options": json.dumps(outcome["options"], sort_keys=True, default=str)}


def _write(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    sink = io.BytesIO()
    named = [{name: row.get(name) for name in schema.names} for row in rows]
    pq.write_table(pa.Table.from_pylist(named, schema=schema), sink)
    write_whole(path, sink.getvalue())
