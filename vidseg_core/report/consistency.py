"""The section of an evaluation that says how steady its masks are, and by which measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from vidseg_core.evaluation.read import Evaluation
from vidseg_core.report.curves import Curve, number, tc_plot
from vidseg_core.report.masks import Pick
from vidseg_core.report.page import Section, num, slug
from vidseg_core.report.schedules import schedule_of, timeline_plot
from vidseg_core.report.style import Look

TC_KINDS = {"tc": "TC", "tc_visible": "TC, visible"}
"""Columns of temporal consistency -> their heads."""
OTHERS = {
    "tc_pooled": "TC, all clips at once",
    "vc8": "VC8",
    "vc16": "VC16",
    "tsb": "Tsb (lower is steadier)",
}
"""Other measures of steadiness -> their heads."""
WHICH = {
    "tc": "TC by ETC Eq. 5 and 6: the mask before, moved along the flow, against the mask now; every pixel "
    "counts, those that only one of the two frames shows too.",
    "tc_visible": "TC of visible pixels: as Eq. 5, but pixels that do not come home by the opposite flow are "
    "occluded and left out. Not comparable with the paper's numbers.",
}
POP = " Pop: TC of frames that are keys minus TC of all others; below 0, masks jump at keys."


def kinds_of_tc(data: Evaluation) -> dict[str, str]:
    """Those of `TC_KINDS` that were measured."""
    return _measured(data, TC_KINDS)


def known(value: float | None) -> float:
    """NaN for a class that is not there."""
    return math.nan if value is None else value


def consistency_section(
    data: Evaluation,
    picks: Sequence[Pick],
    clip: str,
    curves: Sequence[Curve],
    look: Mapping[str, Look],
    suffix: str,
) -> Section:
    """Plots and a table of all methods; of some (`picks`) also each frame of `clip`, and each class."""
    section, kinds = Section(f"Temporal consistency{suffix}"), kinds_of_tc(data)
    first, *others = kinds
    also = " The table has both." if others else ""
    section.plot(tc_plot(curves, look, f"consistency{slug(suffix)}", first), WHICH[first] + POP + also)
    section.text(
        "Propagated masks are consistent by construction, so rare keys have a high TC even where they are "
        "wrong. Read TC beside quality, and the pop beside both."
    )
    _table(section, data, kinds)
    if "tc" in kinds:
        _frame_by_frame(section, data, picks, clip, look, suffix)
        _class_by_class(section, data, picks)
    return section


def _measured(data: Evaluation, heads: Mapping[str, str]) -> dict[str, str]:
    return {name: head for name, head in heads.items() if any(number(row[name]) for row in data.methods)}


def _table(section: Section, data: Evaluation, kinds: Mapping[str, str]) -> None:
    others, heads = _measured(data, OTHERS), ["method", "AKI"]
    for head in kinds.values():
        heads += [head, f"{head}, other direction", f"{head}: pop at keys"]
    columns = [kind + what for kind in kinds for what in ("", "_forward", "_pop")] + list(others)
    rows = [
        [
            f"{row['method']} {row['point']}",
            num(row["aki"], 1),
            *(num(row[name], 4) for name in columns),
        ]
        for row in data.methods
    ]
    section.table([*heads, *others.values()], rows, fold="All methods")


def _frame_by_frame(
    section: Section,
    data: Evaluation,
    picks: Sequence[Pick],
    clip: str,
    look: Mapping[str, Look],
    suffix: str,
) -> None:
    mine = [
        schedule_of(data, curve.name, row["method_id"], [clip], of="warp_accuracy") for curve, row in picks
    ]
    if any((~np.isnan(schedule.quality)).sum() > 1 for schedule in mine):
        section.plot(
            timeline_plot(mine, look, "warping accuracy", f"warping{slug(suffix)}"),
            f"Clip {clip}: share of pixels that have the class of where they come from (ETC Fig. 5).",
        )


def _class_by_class(section: Section, data: Evaluation, picks: Sequence[Pick]) -> None:
    kinds = ("tc_pooled", "class_tc_pooled"), ("tc", "class_tc")
    pooled = all(row["class_tc_pooled"] for _, row in picks)
    mean, classes = kinds[0] if pooled else kinds[1]
    rows = [
        [f"{curve.name}, AKI {row['aki']:.1f}", num(row[mean]), *(num(known(v)) for v in row[classes])]
        for curve, row in picks
        if row[classes]
    ]
    if rows:
        section.head("TC by class (ETC Table VI)")
        section.table(["method", "TC, all clips at once" if pooled else "TC", *data.class_names], rows)
