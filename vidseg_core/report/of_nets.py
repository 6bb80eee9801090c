"""Several nets on the same clips, side by side: ETC Table V and the plot that goes with it (ETC Fig. 2).

Model: evaluations are comparable if they measured the same frames against the same labels: equal data, split,
protocol, length of clips, working size, classes and kind of consistency, and the same clips in the end, none
of them quarantined here and measured there. Then quality against labels says which net with
which schedule is worth its time. Fidelity does not: each net is its own reference there.

Ranks as in Table V: by mIoU, TC and fps among what is shown, and `R` by the sum of the three. TC is that
of all clips at once, as the table's, where each evaluation has it. What was not measured has no rank, and no
`R`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from vidseg_core.evaluation.read import Evaluation
from vidseg_core.report.curves import curves_of, fps_plot, number
from vidseg_core.report.page import Section, num
from vidseg_core.report.style import looks

SAME = (
    *("data", "split", "protocol", "snippet_frames", "clip_frames", "limit", "working_size"),
    "tc_occlusion",
)
"""Options that decide what is measured, whatever net it is."""


def net_of(data: Evaluation) -> str:
    """The net with the first digits of its weights' digest."""
    digest = str(data.info["fingerprint"].get("segmenter_sha256", ""))[:12]
    name = str(data.config["segmenter"])
    return f"{name} ({digest})" if digest else name


def comparable(found: Sequence[Evaluation]) -> bool:
    """Whether these measured the same against labels."""
    first = found[0]
    return all(
        data.has_labels
        and data.version == first.version
        and data.class_names == first.class_names
        and all(data.config.get(name) == first.config.get(name) for name in SAME)
        and set(data.clips) == set(first.clips)
        and _quarantined(data) == _quarantined(first)
        for data in found
    )


def _quarantined(data: Evaluation) -> set[str]:
    return {row["clip"] for row in data.quarantine}


def nets_section(found: Sequence[Evaluation]) -> Section | None:
    """All of them in one plot and one table; None for a single net, or where they cannot be compared."""
    if len({net_of(data) for data in found}) < 2 or not comparable(found):
        return None
    section, short = Section("Nets"), _short_names(found)
    section.text("Several nets on the same clips and labels, each with its schedules.")
    curves = [
        replace(curve, name=f"{short[net_of(data)]}: {curve.name}")
        for data in found
        for curve in curves_of(data.methods, "miou")
    ]
    if any(number(row["fps"]) for data in found for row in data.methods):
        look = looks(curve.name for curve in curves)
        section.plot(
            fps_plot(curves, look, "miou", "nets"),
            "Quality against speed, a line for each net and scheduler (ETC Fig. 2). Speed is that of the "
            "machine on which each was evaluated: compare what ran on the same.",
        )
    rows = [(short[net_of(data)], row) for data in found for row in data.methods]
    pooled = all(row["tc_pooled"] is not None for _, row in rows)
    ranked = ("miou", "tc_pooled" if pooled else "tc", "fps")
    ranks = {name: ranks_of([row[name] for _, row in rows]) for name in ranked}
    together = ranks_together(list(ranks.values()))
    heads = ["net", "method", "parameters, M", "GFLOP", "AKI"]
    heads += ["mIoU", "r1", "TC, all clips at once" if pooled else "TC", "r2", "fps", "r3", "R"]
    table = [
        [
            net,
            f"{row['method']} {row['point']}".strip(),
            num(None if row["parameters"] is None else row["parameters"] / 1e6, 1),
            num(row["gflop"], 1),
            num(row["aki"], 1),
            *(
                cell
                for name in ranked
                for cell in (num(row[name], 1 if name == "fps" else 3), num(ranks[name][n], 0))
            ),
            num(together[n], 0),
        ]
        for n, (net, row) in enumerate(rows)
    ]
    section.table(heads, [[str(cell) for cell in cells] for cells in table], texts=(0, 1))
    section.parts.append(
        '<p class="soft">Parameters and 10^9 operations of one call of the net, a multiplication and the '
        "addition after it counted as two. r1, r2, r3: ranks by mIoU, TC, fps; R: by their sum.</p>"
    )
    return section


def _short_names(found: Sequence[Evaluation]) -> dict[str, str]:
    """Net -> how it is called on the page: without its digest where that is clear."""
    names = {net_of(data): str(data.config["segmenter"]) for data in found}
    held = list(names.values())
    return {net: name if held.count(name) == 1 else net for net, name in names.items()}


def ranks_of(values: Sequence[float | None]) -> list[int | None]:
    """1 for the highest; equals share a rank, and what is not known (None, NaN) has none."""
    known = [None if value is None or math.isnan(value) else value for value in values]
    return [
        None if value is None else 1 + sum(other is not None and other > value for other in known)
        for value in known
    ]


def ranks_together(ranks: Sequence[Sequence[int | None]]) -> list[int | None]:
    """Ranks by the sum of several, the lowest first; None where one of them is missing."""
    sums = [
        None if any(place is None for place in places) else -sum(filter(None, places))
        for places in zip(*ranks, strict=True)
    ]
    return ranks_of(sums)
