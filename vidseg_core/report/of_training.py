"""The sections of a training run (DVRL Fig. 3): what its curve file holds, a panel for each quantity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidseg_core.report.page import Section, num
from vidseg_core.report.style import COLOURS, Plot
from vidseg_core.store.keys import CURVE_KEY, RUN_KEY
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.small_files import Shape, read_object, read_table

PICTURE = "curve.png"
"""The curves as a picture, beside their table."""
_RUN_SHAPE: Shape = {"verb": str, "operating_points": [{}]}
_REMEDY = f"remove it and {RUN_KEY}, and the same training command writes both again"
STEPS = ("step", "batch", "epoch", "update")
"""Columns that may be the x axis, the first that is there."""
WORDS: Mapping[str, str] = {
    "loss": "loss",
    "exact": "loss of pairs with exact flow",
    "photo": "loss of warped pictures",
    "task": "loss of warped labels or scores",
    "scores": "loss of scores between keys",
    "features": "loss of features between keys",
    "labels": "loss of labels between keys",
    "deviation": "loss of the expected deviation",
    "val_miou": "validation mIoU",
    "val_loss": "validation loss",
    "val_rmse": "validation error (RMS)",
    "mean_return": "mean return of an episode",
    "val_quality": "validation quality",
    "kar": "keys per frame (KAR)",
    "entropy": "entropy of a decision (nats)",
    "kar_weight": "weight of KAR in the policy",
    "lkd_weight": "weight of LKD in the policy",
    "length": "length of a walk (frames)",
    "lr": "learning rate",
}
"""What is drawn of the columns that are there and not zero throughout, and its label; others are not."""
SMOOTH = 15
"""Points of the running mean over noisy quantities."""
NOISY = (
    "loss",
    "exact",
    "photo",
    "task",
    "scores",
    "features",
    "labels",
    "deviation",
    "mean_return",
    "kar",
    "length",
    "entropy",
)


def is_training(store: ObjectStore) -> bool:
    """Is there a curve?"""
    return store.exists(CURVE_KEY)


def sections(store: ObjectStore, suffix: str) -> tuple[list[Section], dict[str, str]]:
    """The curves, and the outcome where the run was finished."""
    table = read_table(store.get(CURVE_KEY), f"{store.root}: {CURVE_KEY}", _REMEDY)
    columns = {name: _numbers(table.column(name).to_pylist()) for name in table.column_names}
    step = next((name for name in STEPS if name in columns), None)
    section = Section(f"Training{suffix}")
    facts = _facts(store)
    section.text(f"{facts.get('verb', 'training')} in {store.root}.")
    if not facts:
        section.note("The run is not finished (no run.json): these are the rows so far.")
    cards = [(num(len(table)), "rows of the curve")]
    cards += [(num(value, 4), f"best {word}") for value, word in _best(facts)]
    if isinstance(facts.get("seconds"), (int, float)):
        cards.append((num(float(facts["seconds"]), 0), "seconds"))
    section.cards(cards)
    shown = [name for name in WORDS if name in columns and _says_something(columns[name])]
    if step is None or not shown:
        return [section], {f"training curves{suffix}": f"{CURVE_KEY} holds no step and no known quantity"}
    section.plot(
        curves_plot(columns, step, shown, f"training{_slug(suffix)}"),
        "Training curves; thin: every logged row, thick: a running mean. "
        + ("Weights of KAR and LKD as in DVRL Fig. 3, bottom." if "kar_weight" in shown else ""),
    )
    _by_gap(section, facts.get("details"))
    points = facts.get("operating_points")
    if points:
        section.head("Operating points")
        heads = ["key interval (AKI)", "quality", "threshold"]
        rows = [[num(p.get("aki"), 1), num(p.get("quality"), 4), num(p.get("threshold"), 4)] for p in points]
        section.table(heads, rows, texts=())
    return [section], {}


def curves_plot(columns: Mapping[str, np.ndarray], step: str, shown: Sequence[str], name: str) -> Plot:
    """A panel for each quantity over the steps."""

    def draw(figure: Figure, narrow: bool) -> None:
        across = 1 if narrow or len(shown) == 1 else 2
        down = -(-len(shown) // across)
        panels = figure.subplots(down, across, squeeze=False, sharex=True)
        x = columns[step]
        for place, axes in enumerate(panels.flat):
            if place >= len(shown):
                axes.set_visible(False)
                continue
            what = shown[place]
            known = np.isfinite(columns[what])
            y, colour = columns[what][known], COLOURS[place % len(COLOURS)]
            noisy, over = what in NOISY and len(y) > 2 * SMOOTH, min(SMOOTH, len(y) // 6)
            marker = "o" if len(y) <= 40 else None
            axes.plot(
                x[known],
                y,
                color=colour,
                linewidth=0.7 if noisy else 1.6,
                alpha=0.45 if noisy else 1,
                marker=marker,
                markersize=3,
            )
            if noisy:
                mean = np.convolve(y, np.full(over, 1 / over), mode="valid")
                middle = x[known][(over - 1) // 2 :][: len(mean)]
                axes.plot(middle, mean, color=colour, linewidth=1.8)
            axes.set_title(WORDS[what], loc="left", fontsize=9)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if place >= len(shown) - across:
                axes.set_xlabel(step)
                axes.tick_params(labelbottom=True)

    return Plot(
        name=name,
        alt="Curves of a training run over its steps.",
        draw=draw,
        wide=(8.2, 0.7 + 1.8 * -(-len(shown) // 2)),
        narrow=(4.1, 0.7 + 1.6 * len(shown)),
    )


def _by_gap(section: Section, details: Any) -> None:
    """mIoU of clips left out by gap, and how well changes were foretold, where the run measured them."""
    scores = details.get("scores") if isinstance(details, Mapping) else None
    if not scores:
        return
    gaps = sorted({int(score["gap"]) for score in scores})
    rows = []
    for method in dict.fromkeys(str(score["method"]) for score in scores):
        found = [[s["miou"] for s in scores if (s["method"], s["gap"]) == (method, gap)] for gap in gaps]
        rows.append(
            [method, *(num(float(np.nanmean(values)) if values else math.nan, 3) for values in found)]
        )
    section.head("On clips left out")
    clips = len({score["clip"] for score in scores})
    section.text(f"mIoU by frames from the key, the mean of {clips} clip(s), beside the simplest ways.")
    section.table(["method", *(f"gap {gap}" for gap in gaps)], rows)
    if ranks := details.get("ranks"):
        expected, difference = (
            num(float(np.nanmean([rank[name] for rank in ranks])), 3) for name in ("expected", "difference")
        )
        section.text(
            f"Rank correlation with the share of labels that changed: expected deviation {expected}, mean "
            f"difference of the pictures {difference}."
        )


def curve_picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """PNG with a panel for each quantity that the rows know (return, entropy, KAR, weights of KAR and LKD
    as in DVRL Fig. 3, validation); empty bytes where there is nothing to draw."""
    columns = {name: _numbers([row.get(name) for row in rows]) for name in (*STEPS, *WORDS)}
    known = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    step = next((name for name in STEPS if name in known), None)
    shown = [name for name in WORDS if name in known and _says_something(known[name])]
    if step is None or not shown:
        return b""
    return curves_plot(known, step, shown, "training").save("png")


def _best(facts: Mapping[str, Any]) -> Iterator[tuple[float, str]]:
    """The score of the weights that were kept; runs of older versions name it after what it is."""
    of_old = (("best_quality", "val_quality"), ("best_miou", "val_miou"))
    for name, measure in (("best", str(facts.get("measure"))), *of_old):
        if isinstance(facts.get(name), (int, float)):
            yield float(facts[name]), WORDS.get(measure, measure)


def _facts(store: ObjectStore) -> dict[str, Any]:
    try:
        return read_object(store, RUN_KEY, _RUN_SHAPE, _REMEDY)
    except FileNotFoundError:
        return {}


def _says_something(values: np.ndarray) -> bool:
    return bool(np.nan_to_num(values).any())


def _numbers(values: Sequence[Any]) -> np.ndarray:
    return np.array([float(v) if isinstance(v, (int, float)) else math.nan for v in values], float)


def _slug(suffix: str) -> str:
    return "".join(f"-{c}" for c in suffix if c.isdigit())
