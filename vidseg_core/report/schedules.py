"""What schedules look like: where keys lie (DVRL Fig. 6 and 7), and how quality falls off after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidseg_core.evaluation.read import Evaluation
from vidseg_core.metrics.schedule import quality_by_distance
from vidseg_core.report.style import Look, Plot, legend, narrow_size, plain

REACHED = 0.25
"""Farther from a key than this share of intervals goes, a mean would be that of the odd few."""


@dataclass(frozen=True)
class Schedule:
    """One method on one clip, or on several joined ones."""

    name: str
    is_key: np.ndarray
    quality: np.ndarray
    """A number for each frame, NaN where none is known."""
    distance: np.ndarray
    intervals: np.ndarray
    """Frames from key to key, of all clips; none reaches over the edge of a clip."""


def schedule_of(
    data: Evaluation, name: str, method_id: str, clips: Sequence[str], *, of: str = ""
) -> Schedule:
    """A method of an evaluation on some of its clips; `of`: the column that is shown, else quality."""
    shown = of or data.quality
    parts = [data.frames[clip, method_id] for clip in clips if (clip, method_id) in data.frames]
    joined = {n: np.concatenate([part[n] for part in parts]) for n in ("is_key", shown, "distance")}
    intervals = [
        np.diff(np.flatnonzero(part["is_key"][part["run"] == run]))
        for part in parts
        for run in np.unique(part["run"])
    ]
    return Schedule(
        name=name,
        is_key=joined["is_key"].astype(bool),
        quality=joined[shown].astype(float),
        distance=joined["distance"],
        intervals=np.concatenate(intervals) if intervals else np.empty(0, np.int64),
    )


def interval_plot(schedules: Sequence[Schedule], look: Mapping[str, Look], name: str) -> Plot:
    """Histogram of consecutive key intervals (DVRL Fig. 6), a row for each method."""
    shown = [schedule for schedule in schedules if len(schedule.intervals)]
    longest = max((int(schedule.intervals.max()) for schedule in shown), default=1)
    wide = -(-longest // 60)  # frames in a bar, so that there are at most 60
    edges = np.arange(0, longest + wide + 1, wide) + 0.5

    def draw(figure: Figure, narrow: bool) -> None:
        rows = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, schedule in zip(rows, shown, strict=True):
            weights = np.full(len(schedule.intervals), 100.0 / len(schedule.intervals))
            axes.hist(schedule.intervals, bins=list(edges), weights=weights, color=look[schedule.name].colour)
            axes.axvline(float(schedule.intervals.mean()), color="black", linewidth=1, linestyle=":")
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.set_title(plain(schedule.name, 40 if narrow else 80), loc="left", fontsize=9)
        rows[-1].set_xlabel("consecutive key interval, CKI (frames)")
        rows[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.supylabel("share of intervals (%)", fontsize=10)

    height = 1.0 + 0.95 * max(1, len(shown))
    return Plot(
        name=name,
        alt="Histogram of consecutive key intervals for each method; dotted: the mean.",
        draw=draw,
        wide=(8.2, height),
        narrow=(4.1, height),
    )


def timeline_plot(schedules: Sequence[Schedule], look: Mapping[str, Look], what: str, name: str) -> Plot:
    """Quality frame by frame, and below it where each method has its keys (DVRL Fig. 7)."""

    def draw(figure: Figure, narrow: bool) -> None:
        ratio = [3.0, 0.32 * len(schedules) + 0.25]
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=ratio)
        for place, schedule in enumerate(schedules):
            style = look[schedule.name]
            frames = np.arange(len(schedule.is_key))
            known = ~np.isnan(schedule.quality)
            top.plot(
                frames[known],
                schedule.quality[known],
                color=style.colour,
                linestyle=style.dash,
                linewidth=1.2,
                label=plain(schedule.name),
            )
            keys = np.flatnonzero(schedule.is_key)
            bottom.vlines(keys, place - 0.36, place + 0.36, color=style.colour, linewidth=1.4)
        top.set_ylabel(plain(what))
        bottom.set_yticks(range(len(schedules)))
        short = [plain(s.name, 14 if narrow else 30) for s in schedules]
        bottom.set_yticklabels(
            [f"{n} ({int(s.is_key.sum())})" for n, s in zip(short, schedules, strict=True)]
        )
        bottom.tick_params(axis="y", labelsize=8)
        bottom.set_ylim(len(schedules) - 0.4, -0.6)
        bottom.grid(False)
        bottom.set_xlabel("frame (marks: key frames; in brackets: how many)" if not narrow else "frame")
        if narrow:
            legend(top, narrow)
        else:
            top.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False)

    extra = 0.32 * len(schedules)
    return Plot(
        name=name,
        alt="Quality of every frame, a line for each method; marks below show the key frames.",
        draw=draw,
        wide=(8.2, 3.6 + extra),
        narrow=(4.1, 3.6 + 1.6 * extra),
    )


def decay_plot(schedules: Sequence[Schedule], look: Mapping[str, Look], what: str, name: str) -> Plot:
    """Mean quality by distance from the last key, as far as a share `REACHED` of the intervals reaches."""

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for schedule in schedules:
            decay = quality_by_distance(schedule.distance, schedule.quality)
            if not len(decay.frames):
                continue
            style, known = look[schedule.name], decay.frames >= REACHED * decay.frames[0]
            axes.plot(
                decay.distance[known],
                decay.quality[known],
                color=style.colour,
                linestyle=style.dash,
                label=plain(schedule.name),
            )
        axes.set_xlabel("frames since the last key")
        axes.set_ylabel(plain(what))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(axes, narrow)

    narrow = narrow_size([schedule.name for schedule in schedules])
    return Plot(name=name, alt="Mean quality by distance from the last key frame.", draw=draw, narrow=narrow)
