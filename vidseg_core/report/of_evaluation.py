"""The sections of an evaluation: curves, share closed, schedules, masks, worst frames, consistency, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from vidseg_core.config.catalogue import EVERY, FIXED, SCHEDULERS
from vidseg_core.config.methods import ORACLE
from vidseg_core.config.report import ReportConfig
from vidseg_core.evaluation.read import Evaluation
from vidseg_core.metrics.cost import Cost
from vidseg_core.report.consistency import consistency_section, kinds_of_tc, known
from vidseg_core.report.curves import (
    QUALITY_WORDS,
    Curve,
    aki_plot,
    curves_of,
    fps_plot,
    number,
    shares,
)
from vidseg_core.report.masks import MOST_ROWS, Pick, strips_section, telling_clip, worst_section
from vidseg_core.report.page import FOLDED_ROWS, Section, esc, num, slug
from vidseg_core.report.schedules import decay_plot, interval_plot, schedule_of, timeline_plot
from vidseg_core.report.style import Look, looks

SHARE_INTERVALS = (6, 10, 12, 25, 50, 100)
MOST_LINES = 4
"""Methods in a timeline: more cannot be told apart."""


def sections(data: Evaluation, config: ReportConfig, suffix: str) -> tuple[list[Section], dict[str, str]]:
    """Everything that this evaluation can show, and what it cannot. `suffix` tells inputs apart."""
    curves = curves_of(data.methods, data.quality)
    absent: dict[str, str] = {}
    found = [_overview(data, suffix)]
    if not curves:
        absent[f"curves{suffix}"] = "no method has both a quality and a key interval"
        return found + _quarantine(data, suffix), absent
    look = looks(curve.name for curve in curves)
    found.append(_curves(data, curves, look, config, suffix, absent))
    picks = _picks(curves, config.aki)
    found.append(_schedules(data, picks, look, config, suffix, absent))
    every = [(curve, curve.rows[0]) for curve in curves if curve.scheduler == EVERY]
    shown = [*picks, *(one for one in every if one not in picks)]
    classes = _classes(data, shown, suffix)
    found += [classes] if classes else []
    strips = strips_section(data, picks, config, suffix, absent)
    found += [strips] if strips else []
    if config.worst:
        worst = worst_section(data, picks, config, suffix)
        found += [worst] if worst else []
    if kinds_of_tc(data):
        clip = telling_clip(data, picks, config)
        found.append(consistency_section(data, picks[:MOST_LINES], clip, curves, look, suffix))
    else:
        absent[f"temporal consistency{suffix}"] = "the evaluation was made with --no-tc"
    if _knows_cost(data):
        found.append(_cost(data, shown, config, suffix))
    else:
        absent[f"speed and cost{suffix}"] = (
            "labels stand in for the net; evaluate --key_net_ms says what a call of the net takes"
        )
    return found + _quarantine(data, suffix), absent


def _overview(data: Evaluation, suffix: str) -> Section:
    section, config = Section(f"Evaluation{suffix}"), data.config
    if not data.complete:
        section.note(
            "This evaluation was begun again and has not come to its end (no _SUCCESS): the tables below are "
            "those of the command before."
        )
    net = config["segmenter"]
    played = (
        "the labels stand in for the net, so a key is perfect" if net == "labels" else f"the net is {net}"
    )
    if config["protocol"] == "snippet":
        how = f"snippets of {config['snippet_frames']} frames: the first is key, the last one is measured"
    else:
        how = "whole clips, every labelled frame measured"
    section.text(f"{', '.join(config['data'])}; {how}; {played}; at {config['working_size']} pixels.")
    frames = sum(row["frames"] for row in data.results if row["method_id"] == data.results[0]["method_id"])
    bad = len({row["clip"] for row in data.quarantine})
    section.cards(
        [
            (num(len(data.clips)), "clips"),
            (num(frames), "frames a method"),
            (num(len(data.methods)), "methods"),
            (num(bad), "clips quarantined"),
        ]
    )
    costs = _knows_cost(data)
    kinds = kinds_of_tc(data) or {"tc": "TC"}
    pop = f"{next(iter(kinds))}_pop"
    heads = ["method", "AKI", "mIoU", "fidelity", *kinds.values(), "pop", *(["fps"] if costs else [])]
    heads.append("longest wait")
    rows = [
        [
            f"{row['method']} {row['point']}",
            num(row["aki"], 1),
            num(row["miou"]),
            num(row["fidelity"]),
            *(num(row[kind]) for kind in kinds),
            num(row[pop]),
            *([num(row["fps"], 1)] if costs else []),
            f"{row['wait_max_frames']} frames",
        ]
        for row in data.methods
    ]
    section.table(heads, rows, fold="All methods")
    speed = f" fps: flow, propagation, decisions and net on one {_unit(data)}"
    if net == "labels":
        speed += f"; the net is put at {esc(num(float(config['key_net_ms']), 1))} ms a key"
    section.parts.append(
        f'<p class="soft">AKI: frames per key.{speed + "." if costs else ""} '
        "Wait: with two-sided propagation a frame waits for the next key.</p>"
    )
    return section


def _curves(
    data: Evaluation,
    curves: Sequence[Curve],
    look: Mapping[str, Look],
    config: ReportConfig,
    suffix: str,
    absent: dict[str, str],
) -> Section:
    section = Section(
        f"Quality, keys and speed{suffix}" if _knows_cost(data) else f"Quality and keys{suffix}"
    )
    section.plot(
        aki_plot(curves, look, data.quality, f"aki{slug(suffix)}"),
        "Quality against average key interval, all clips together (DVRL Fig. 4 and 5, top). Dotted, where it "
        "was evaluated: the net on every frame.",
    )
    if _knows_cost(data):
        section.plot(
            fps_plot(curves, look, data.quality, f"fps{slug(suffix)}", of=_unit(data)),
            "Quality against speed: frames over the seconds of flow, propagation, decisions and the net on "
            "key frames (DVRL Fig. 4 and 5, bottom); reading is not in it. "
            + (
                "Seconds of the GPU's worker, as measured where the evaluation ran."
                if _unit(data) != "core"
                else "CPU seconds of one core, as measured where the evaluation ran."
            ),
        )
    lowest = min(curve.aki.min() for curve in curves)
    highest = max(curve.aki.max() for curve in curves)
    intervals = [interval for interval in SHARE_INTERVALS if lowest <= interval <= highest]
    closed = shares(curves, intervals)
    told = [n for n in range(len(intervals)) if any(not math.isnan(row[n]) for row in closed.values())]
    if told:
        section.head("Share of the gap to the oracle that is closed")
        section.text(
            "0 % is a key every so many frames, 100 % the best schedule there is, with the same propagation. "
            "Between measured points quality is interpolated; a dash: not measured, or nothing to gain. "
            "The oracle's schedule has the best mean of the frames' own mIoU; pooled over pixels, as here, "
            "another one may come out a little above it."
        )
        heads = ["method", *(f"AKI {intervals[n]}" for n in told)]
        section.table(heads, [[name, *(_percent(row[n]) for n in told)] for name, row in closed.items()])
    elif closed:
        absent[f"share of the gap to the oracle{suffix}"] = (
            "fixed and oracle have no key interval in common at which the oracle is better"
        )
    else:
        absent[f"share of the gap to the oracle{suffix}"] = (
            "needs the methods fixed and oracle with the same propagation "
            "(evaluate --methods oracle:interval=... --tables SET)"
        )
    return section


def _knows_cost(data: Evaluation) -> bool:
    """Whether the net's own cost is in the numbers."""
    return any(number(row["fps"]) for row in data.methods)


def _unit(data: Evaluation) -> str:
    """Whose seconds were counted."""
    return "GPU worker" if any(row["gpu_s"] for row in data.methods) else "core"


def _classes(data: Evaluation, picks: Sequence[Pick], suffix: str) -> Section | None:
    """IoU of each class at the chosen operating points; None without labels."""
    if not data.has_labels:
        return None
    section = Section(f"Classes{suffix}")
    section.text(
        "IoU against the labels at the operating points below, pixels of all measured frames counted first; "
        "mIoU is the mean of a row's numbers. A dash: neither labels nor masks hold the class."
    )
    rows = [
        [f"{curve.name}, AKI {row['aki']:.1f}", num(row["miou"]), *(num(known(v)) for v in row["class_iou"])]
        for curve, row in picks
    ]
    section.table(["method", "mIoU", *data.class_names], rows)
    return section


def _picks(curves: Sequence[Curve], aki: float) -> list[Pick]:
    """One operating point of each method, the nearest to the interval; `every` is the reference, not one."""
    ranked = sorted(curves, key=lambda curve: _rank(curve.scheduler))  # stable
    chosen = [(curve, curve.nearest(aki)) for curve in ranked if curve.scheduler != EVERY]
    return chosen or [(curve, curve.nearest(aki)) for curve in curves]


def _rank(scheduler: str) -> int:
    """Where only a few methods can be shown: trained ones and plug-ins first, then even keys, the oracle,
    the other scores, chance, and the net on every frame."""
    entry = SCHEDULERS.get(scheduler)
    if entry is None or entry.trained_by:
        return 2 if scheduler == ORACLE else 0
    if entry.scores:
        return 3
    return 1 if scheduler == FIXED else 5 if scheduler == EVERY else 4


def _schedules(
    data: Evaluation,
    picks: Sequence[Pick],
    look: Mapping[str, Look],
    config: ReportConfig,
    suffix: str,
    absent: dict[str, str],
) -> Section:
    section = Section(f"Where the keys are{suffix}")
    points = ", ".join(f"{curve.name} {row['aki']:.1f}" for curve, row in picks)
    section.text(f"Of each method the operating point nearest to AKI {config.aki:g} is shown. AKI: {points}.")
    everywhere = [
        schedule_of(data, curve.name, row["method_id"], data.clips) for curve, row in picks[:MOST_ROWS]
    ]
    if any(len(schedule.intervals) for schedule in everywhere):
        section.plot(
            interval_plot(everywhere, look, f"intervals{slug(suffix)}"),
            "Distance from one key to the next, over all clips (DVRL Fig. 6). Dotted: the mean.",
        )
    else:
        absent[f"histogram of key intervals{suffix}"] = "no clip has two keys"
    clip = telling_clip(data, picks, config)
    mine = [schedule_of(data, curve.name, row["method_id"], [clip]) for curve, row in picks[:MOST_LINES]]
    measured = any((~np.isnan(schedule.quality)).sum() > 1 for schedule in mine)
    if measured:
        section.plot(
            timeline_plot(mine, look, _short(data.quality), f"timeline{slug(suffix)}"),
            f"Clip {clip}: quality frame by frame, and where the keys are (DVRL Fig. 7). Quality of a frame "
            "is the mean IoU of the classes that it shows.",
        )
        section.plot(
            decay_plot(everywhere, look, _short(data.quality), f"decay{slug(suffix)}"),
            "How quality falls off after a key, all clips, as far as a quarter of the intervals reaches.",
        )
    else:
        absent[f"timeline{suffix}"] = "fewer than two frames of the clip are measured (snippets)"
    if measured and len(picks) > MOST_LINES:
        rest = ", ".join(curve.name for curve, _ in picks[MOST_LINES:])
        section.parts.append(f'<p class="soft">Not in the timeline, for legibility: {esc(rest)}.</p>')
    return section


def _cost(data: Evaluation, picks: Sequence[Pick], config: ReportConfig, suffix: str) -> Section:
    section = Section(f"Cost and latency{suffix}")
    section.text(
        f"Compute of reading, flow, propagation and net on key frames, at {config.cpu_hour:g} "
        f"{config.currency} for an hour of a core and {config.gpu_hour:g} for one of a GPU; "
        f"video at {data.config['fps']:g} frames per second. Idle machines are not in it. Latency is the "
        "compute of a frame without reading it."
    )
    heads = [
        "method",
        "net calls saved",
        "CPU-s per video hour",
        "GPU-s per video hour",
        f"{config.currency} per video hour",
        "latency, mean",
        "latency, highest",
        "wait, mean",
        "wait, longest",
    ]
    rows, chosen = {}, [row["method_id"] for _, row in picks]
    for row in data.methods:
        cost = Cost(cpu_s=row["cpu_s"], gpu_s=row["gpu_s"], video_s=row["frames"] / data.config["fps"])
        money = cost.money_per_video_hour(cpu_hour=config.cpu_hour, gpu_hour=config.gpu_hour)
        rows[row["method_id"]] = [
            f"{row['method']} {row['point']}",
            f"{100 * row['calls_saved']:.1f} %",
            num(row["cpu_s_per_video_hour"], 0),
            num(row["gpu_s_per_video_hour"], 0),
            num(money, 3),
            f"{1000 * row['latency_mean_s']:.1f} ms",
            f"{1000 * row['latency_max_s']:.1f} ms",
            f"{row['wait_mean_frames']:.1f} frames",
            f"{row['wait_max_frames']} frames",
        ]
    if len(rows) > FOLDED_ROWS > len(chosen):
        section.table(heads, [rows[method_id] for method_id in chosen])
    section.table(heads, list(rows.values()), fold="All methods")
    return section


def _quarantine(data: Evaluation, suffix: str) -> list[Section]:
    if not data.quarantine:
        return []
    section = Section(f"Put aside{suffix}")
    section.text("These clips, or single methods on them, could not be measured; nothing above counts them.")
    rows = [[row["clip"], row["method"], row["reason"], row["message"]] for row in data.quarantine]
    section.table(["clip", "method", "reason", "what happened"], rows, texts=(0, 1, 2, 3))
    return [section]


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:+.0f} %".replace("-", "−")


def _short(quality: str) -> str:
    return {"miou": "mIoU of the frame", "fidelity": "fidelity of the frame"}.get(
        quality, QUALITY_WORDS[quality]
    )
