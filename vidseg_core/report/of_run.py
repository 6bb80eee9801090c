"""The sections of a run of ``vidseg segment`` or pseudo-label: what was done, keys, cost, quarantine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidseg_core.config.catalogue import SCHEDULERS
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.report import ReportConfig
from vidseg_core.metrics.cost import Cost
from vidseg_core.metrics.schedule import join, key_statistics
from vidseg_core.report import run_pictures
from vidseg_core.report.page import Section, num, slug
from vidseg_core.report.regions import region_section
from vidseg_core.report.schedules import Schedule, interval_plot
from vidseg_core.report.style import COLOURS, KEY_HEX, Look, Plot, plain
from vidseg_core.scheduling.by_name import threshold_of
from vidseg_core.store import Run

MOST_VIDEOS = 4
"""Videos whose scores are drawn."""
MOST_ROWS = 200
"""Rows in a table of videos; the rest is counted."""
_COLUMNS = ("is_key", "decision_score", "lkd", "kar")


def sections(run: Run, config: ReportConfig, suffix: str) -> tuple[list[Section], dict[str, str]]:
    """Everything that a run can show, finished or not."""
    info, videos = run.info(), run.videos().to_pylist()
    known = [video_id for video_id, _ in run.files()]
    found, absent = [_overview(run, info, videos, known, suffix)], dict[str, str]()
    if not known:
        absent[f"key frames{suffix}"] = "no frame has been committed"
    else:
        pictures, lacking = run_pictures.sections(run, videos, known, config, suffix)
        found += [*pictures, _keys(run, info, known, suffix)]
        if (regions := RegionsConfig.of(info.get("config", {}))) is not None:
            found.append(region_section(run, regions, known, MOST_VIDEOS, suffix))
        absent |= lacking
    if videos:
        found.append(_cost(info, videos, config, suffix))
    bad = [row for row in videos if row["status"] != "ok"]
    if bad:
        found.append(_bad(bad, suffix))
    return found, absent


def net_of(run: Run) -> str:
    """Name and weights of the net of a run, as far as it is known."""
    net = run.info().get("segmenter", {})
    digest = str(net.get("weights_sha256", ""))[:12]
    return f"{net.get('name', 'unknown')} ({digest})" if digest else str(net.get("name", "unknown"))


def _overview(
    run: Run,
    info: Mapping[str, Any],
    videos: Sequence[Mapping[str, Any]],
    known: Sequence[str],
    suffix: str,
) -> Section:
    section = Section(f"Run{suffix}")
    open_videos = sorted(set(known) - {row["video_id"] for row in videos})
    if not run.complete:
        section.note(
            f"This run is not finished (no _SUCCESS): {len(videos)} videos are closed, {len(open_videos)} "
            "have frames and are open. What is committed is shown; the same vidseg segment goes on."
        )
    bad = sum(row["status"] == "quarantined" for row in videos)
    if bad:
        were = "video was" if bad == 1 else "videos were"
        section.note(f"{bad} {were} quarantined; the reasons are below.")
    if warning := str(info.get("segmenter", {}).get("warning", "")):
        section.note(warning)
    config = info.get("config", {})
    if config:
        scheduler, propagation = config.get("scheduler", {}), config.get("propagation", {})
        section.text(
            f"{run.path}: net {net_of(run)} at {config.get('working_size')} pixels; scheduler "
            f"{scheduler.get('name')}; {propagation.get('name')} of {propagation.get('level')}, "
            f"{propagation.get('sides')}-sided{_late(propagation)}."
        )
    else:
        section.text(f"{run.path}: no run.json yet, so the configuration is not known here.")
    frames = sum(row["decoded_frames"] for row in videos)
    keys = sum(row["decoded_frames"] / row["aki"] for row in videos if row["aki"])  # with regions: of pixels
    section.cards(
        [
            (num(len(videos)), "videos closed"),
            (num(frames), "frames"),
            (num(frames / keys, 1) if keys else "–", "AKI (frames per key)"),
            (f"{100 * (1 - keys / frames):.1f} %" if frames else "–", "net calls saved"),
        ]
    )
    return section


def _late(propagation: Mapping[str, Any]) -> str:
    if propagation.get("latency") != "low":
        return ""
    return f", low latency: keys show what is carried to them, for {propagation.get('delay')} frames"


def _keys(run: Run, info: Mapping[str, Any], known: Sequence[str], suffix: str) -> Section:
    section = Section(f"Key frames{suffix}")
    scheduler = info.get("config", {}).get("scheduler", {})
    named = str(scheduler.get("name", ""))
    entry = SCHEDULERS.get(named)
    threshold = None if entry and entry.looks_ahead else threshold_of(scheduler)  # of a planner it is a price
    cut = RegionsConfig.of(info.get("config", {})) is not None
    statistics, worth, drawn = [], [], []
    for video_id in known:
        columns = _columns(run, video_id, ("key_share",) if cut else ())
        statistics.append(key_statistics(columns["is_key"]))
        worth.append(columns["worth"])
        if len(drawn) < MOST_VIDEOS:
            drawn.append((video_id, columns))
    became = "have key regions" if cut else "became keys"
    total = join(statistics)
    if len(total.intervals):
        name = "all videos"
        schedule = Schedule(
            name=name,
            is_key=np.empty(0, bool),
            quality=np.empty(0),
            distance=np.empty(0),
            intervals=total.intervals,
        )
        section.plot(
            interval_plot([schedule], {name: Look(COLOURS[0], "o", "-")}, f"run-intervals{slug(suffix)}"),
            f"Distance from one {'frame with key regions' if cut else 'key'} to the next, over all videos. "
            "Dotted: the mean.",
        )
    section.plot(
        score_plot(drawn, threshold, f"run-scores{slug(suffix)}", unit=entry.unit if entry else ""),
        f"The scheduler's score of every frame and the frames that {became}"
        + ("; dashed: the threshold." if threshold is not None else ".")
        + " Forced keys (the first frame, the longest interval) have no score.",
    )
    rows = [
        [
            video_id,
            num(part.frames),
            num(part.keys),
            num(part.frames / keys if keys else math.nan, 1),
            _range(part.intervals),
        ]
        for video_id, part, keys in zip(known, statistics, worth, strict=True)
    ]
    heads = ["video", "frames", "with key regions" if cut else "keys", "AKI", "intervals"]
    section.table(heads, rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        section.text(f"... and {len(rows) - MOST_ROWS} more videos.")
    return section


def _columns(run: Run, video_id: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """`worth`: keys, with regions (`more` has their column) in frames' worth of pixels."""
    rows = list(run.rows(video_id, (*_COLUMNS, *more)))
    score = [math.nan if row["decision_score"] is None else row["decision_score"] for row in rows]
    return {
        "number": np.array([row["frame_index"] for row in rows], np.int64),
        "is_key": np.array([row["is_key"] for row in rows], bool),
        "worth": sum(row["key_share"] if more else row["is_key"] for row in rows),
        "score": np.array(score, float),
    }


def score_plot(
    drawn: Sequence[tuple[str, Mapping[str, np.ndarray]]], threshold: Any, name: str, *, unit: str = ""
) -> Plot:
    """The score of every frame and the keys, a row for each video; long ones are thinned out."""

    def draw(figure: Figure, narrow: bool) -> None:
        rows = figure.subplots(len(drawn), 1, squeeze=False)[:, 0]
        for axes, (video_id, columns) in zip(rows, drawn, strict=True):
            number, places = columns["number"], NARROW_PLACES if narrow else WIDE_PLACES
            score = np.where(np.isfinite(columns["score"]), columns["score"], np.nan)
            shown = outline(score, places)
            keys = spread(number[columns["is_key"]], places // 2)
            tall = 1.0 if len(keys) <= FEW_KEYS else 0.13
            axes.vlines(keys, 0, tall, transform=axes.get_xaxis_transform(), color=KEY_HEX, lw=0.8, zorder=3)
            axes.margins(x=0.01)
            axes.plot(number[shown], score[shown], color=COLOURS[0], linewidth=1)
            if not np.isfinite(score).any():
                axes.set_yticks([])
                axes.text(0.01, 0.85, "no scores", transform=axes.transAxes, fontsize=8, va="top")
            else:
                axes.yaxis.set_major_locator(MaxNLocator(3))
            if threshold is not None:
                axes.axhline(threshold, color="black", linewidth=1, linestyle="--")
            axes.set_title(plain(video_id, 34 if narrow else 80), loc="left", fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 10, integer=True))
        dashed = "" if threshold is None else "; dashed: threshold"
        rows[-1].set_xlabel(f"frame (upright marks: keys{dashed})")
        figure.supylabel(f"score ({unit})" if unit else "score of the scheduler", fontsize=10)

    height = 1.0 + 1.25 * len(drawn)
    return Plot(
        name=name,
        alt="Decision score of every frame, with the key frames marked, one row for each video.",
        draw=draw,
        wide=(8.2, height),
        narrow=(4.1, height),
    )


FEW_KEYS = 60
"""Keys that are drawn from bottom to top; more of them are short marks."""
WIDE_PLACES, NARROW_PLACES = 1200, 600
"""Places along a plot that can be told apart, about two a pixel of what a window shows."""


def outline(values: np.ndarray, places: int) -> np.ndarray:
    """Indices of the lowest and the highest value in each of so many stretches: what a line of all shows.

    All of them where they are few, or where nothing is known.
    """
    if len(values) <= 2 * places:
        return np.arange(len(values))
    chosen = []
    for part in np.array_split(np.arange(len(values)), places):
        known = part[np.isfinite(values[part])]
        chosen += [known[values[known].argmin()], known[values[known].argmax()]] if len(known) else [part[0]]
    return np.unique(chosen)


def spread(numbers: np.ndarray, places: int) -> np.ndarray:
    """One of the numbers, the first, for each of so many stretches from the first to the last."""
    if len(numbers) <= places:
        return numbers
    width = (int(numbers[-1]) - int(numbers[0])) / places
    return numbers[np.unique(((numbers - numbers[0]) / width).astype(np.int64), return_index=True)[1]]


def _cost(
    info: Mapping[str, Any], videos: Sequence[Mapping[str, Any]], config: ReportConfig, suffix: str
) -> Section:
    section = Section(f"Cost{suffix}")
    seconds = {
        name: float(sum(row[name] or 0.0 for row in videos)) for name in ("cpu_s", "gpu_s", "duration_s")
    }
    cost = Cost(cpu_s=seconds["cpu_s"], gpu_s=seconds["gpu_s"], video_s=seconds["duration_s"])
    money = cost.money_per_video_hour(cpu_hour=config.cpu_hour, gpu_hour=config.gpu_hour)
    section.text(
        f"At {config.cpu_hour:g} {config.currency} for an hour of a core and {config.gpu_hour:g} for one "
        "of a GPU; the time that stages worked, not what machines stood idle."
    )
    section.cards(
        [
            (num(cost.cpu_s, 0), "CPU-s"),
            (num(cost.gpu_s, 0), "GPU-s"),
            (num(cost.video_s / 3600, 1), "hours of video")
            if cost.video_s >= 7200
            else (num(cost.video_s / 60, 1), "minutes of video"),
            (f"{num(money, 3)} {config.currency}", "per hour of video"),
        ]
    )
    return section


def _bad(bad: Sequence[Mapping[str, Any]], suffix: str) -> Section:
    section = Section(f"Quarantined and partial videos{suffix}")
    rows = [
        [
            row["uri"],
            row["status"],
            (row["reason"] or "").replace(f"{row['uri']}: ", ""),
            num(row["decoded_frames"]),
            num(row["declared_frames"]),
        ]
        for row in bad[:MOST_ROWS]
    ]
    section.table(["video", "status", "reason", "frames kept", "frames declared"], rows, texts=(0, 1, 2))
    if len(bad) > MOST_ROWS:
        section.text(f"... and {len(bad) - MOST_ROWS} more.")
    return section


def _range(intervals: np.ndarray) -> str:
    return "–" if not len(intervals) else f"{intervals.min()} to {intervals.max()}"
