"""The pictures of an evaluation: masks of several methods on the same frames, and the worst frames of all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vidseg_core.config.report import ReportConfig
from vidseg_core.drawing.paint import Painter
from vidseg_core.evaluation.read import Evaluation
from vidseg_core.metrics import far_from_keys
from vidseg_core.report.curves import Curve, number
from vidseg_core.report.overlay import jpeg_uri, shown_labels, side_by_side
from vidseg_core.report.page import Section, class_legend, esc, image
from vidseg_core.store.keys import beginning_with

MOST_ROWS = 6
"""Methods in mask strips and histograms."""
WORST_APART = 15
"""Frames between two worst frames of one clip: neighbours look alike."""
Pick = tuple[Curve, Mapping[str, Any]]
"""A method and its operating point at the chosen interval."""


def telling_clip(data: Evaluation, picks: Sequence[Pick], config: ReportConfig) -> str:
    """The clip that was asked for, or that on which methods differ most."""
    for clip in beginning_with(config.clip or "", data.clips):
        return clip
    wanted = {row["method_id"] for _, row in picks}
    spread: dict[str, list[float]] = {}
    for row in data.results:
        if row["method_id"] in wanted and number(row[data.quality]):
            spread.setdefault(row["clip"], []).append(row[data.quality])
    return max(spread, key=lambda clip: max(spread[clip]) - min(spread[clip]), default=data.clips[0])


def strips_section(
    data: Evaluation, picks: Sequence[Pick], config: ReportConfig, suffix: str, absent: dict[str, str]
) -> Section | None:
    clip = telling_clip(data, picks, config)
    mine = [pick for pick in picks if (clip, pick[1]["method_id"]) in data.frames][:MOST_ROWS]
    numbers = _strip_frames([data.frames[clip, row["method_id"]] for _, row in mine], config.strip_frames)
    if not len(numbers):
        absent[f"mask strips{suffix}"] = "every frame is a key of some method"
        return None
    section, classes = Section(f"Masks{suffix}"), len(data.class_names)
    painter = Painter(data.class_names)
    records = {n: data.record(clip, n) for n in numbers}
    if any(record is None for record in records.values()):
        section.note("The data set cannot be read from here any more: masks are shown without their frames.")
    frames = {n: record.frame_HW3 if record else None for n, record in records.items()}
    rows: list[tuple[str, list[str]]] = []
    if all(frame is not None for frame in frames.values()):
        rows.append(("frame", [_cell(frame) for frame in frames.values()]))
    labels = {n: record.labels_HW if record else None for n, record in records.items()}
    if any(mask is not None for mask in labels.values()):
        rows.append(("labels", [_cell(_over(painter, frames[n], mask, 256)) for n, mask in labels.items()]))
    own = data.net_masks(clip, numbers)
    if own:
        rows.append(
            ("the net itself", [_cell(_over(painter, frames[n], own.get(n), classes)) for n in numbers])
        )
    for curve, row in mine:
        masks = data.masks(clip, row["method_id"], numbers)
        name = f"{curve.name}, AKI {row['aki']:.1f}"
        rows.append((name, [_cell(_over(painter, frames[n], masks.get(n), classes)) for n in numbers]))
    section.text(f"Clip {clip}: the same frames, keys of none of these methods (DVRL Fig. 8).")
    section.parts.append(class_legend(data.class_names, painter.colours.tolist()))
    section.strip([f"frame {n}" for n in numbers], rows)
    return section


def _strip_frames(columns: Sequence[Mapping[str, np.ndarray]], count: int) -> list[int]:
    """Frames over the whole clip that are no key of any method, and far from keys."""
    if not columns:
        return []
    schedules = [column["is_key"].astype(bool) for column in columns]
    free = ~np.logical_or.reduce(schedules)
    return [int(columns[0]["number"][place]) for place in far_from_keys(schedules, count) if free[place]]


def _over(
    painter: Painter, frame_HW3: np.ndarray | None, labels_HW: np.ndarray | None, classes: int
) -> np.ndarray | None:
    return None if labels_HW is None else painter.over(frame_HW3, shown_labels(labels_HW, classes))


def _cell(picture: np.ndarray | None) -> str:
    return "–" if picture is None else image(jpeg_uri(picture))


def worst_section(
    data: Evaluation, picks: Sequence[Pick], config: ReportConfig, suffix: str
) -> Section | None:
    found: list[tuple[float, str, int, Curve, Mapping[str, Any]]] = []
    for curve, row in picks:
        if curve.scheduler in ("oracle", "random"):
            continue
        for clip in data.clips:
            columns = data.frames.get((clip, row["method_id"]))
            if columns is None:
                continue
            quality = columns[data.quality].astype(float)
            for place in np.argsort(np.where(np.isnan(quality), np.inf, quality))[: 4 * config.worst]:
                if not math.isnan(quality[place]):
                    found.append((float(quality[place]), clip, int(columns["number"][place]), curve, row))
    chosen: list[tuple[float, str, int, Curve, Mapping[str, Any]]] = []
    for one in sorted(found, key=lambda one: (one[0], one[1], one[2])):
        near = any(c[1] == one[1] and abs(c[2] - one[2]) < WORST_APART for c in chosen)
        if not near and len(chosen) < config.worst:
            chosen.append(one)
    if not chosen:
        return None
    section, classes = Section(f"Worst frames{suffix}"), len(data.class_names)
    painter = Painter(data.class_names)
    section.text(
        "The frames of lowest quality among these methods (oracle and chance aside). Left: what is right "
        "(labels, or the net's own mask); right: what the method says. Frames close to a worse one of the "
        "same clip are left out."
    )
    cells = []
    for quality, clip, place, curve, row in chosen:
        record = data.record(clip, place)
        frame = record.frame_HW3 if record else None
        right = record.labels_HW if record is not None and data.quality == "miou" else None
        if right is None:
            right = data.net_masks(clip, [place]).get(place)
        mask = data.masks(clip, row["method_id"], [place]).get(place)
        if mask is None:
            continue
        columns = data.frames[clip, row["method_id"]]
        at = int(np.flatnonzero(columns["number"] == place)[0])
        pictures = [_over(painter, frame, labels_HW, classes) for labels_HW in (right, mask)]
        picture = side_by_side([p for p in pictures if p is not None])
        distance = int(columns["distance"][at])
        since = "a key itself" if columns["is_key"][at] else f"{distance} frames after a key"
        caption = f"{clip}, frame {place}: {quality:.3f}, {curve.name}, {since}"
        cells.append(
            f"<figure>{image(jpeg_uri(picture, 640))}<figcaption>{esc(caption)}</figcaption></figure>"
        )
    section.parts.append(f'<div class="gallery">{"".join(cells)}</div>')
    return section
