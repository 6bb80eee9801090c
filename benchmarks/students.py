"""A small net on every frame, or a large one on key frames? Masks and their flicker at equal CPU time.

    python -m benchmarks.students [--json FILE] [--png FILE] [--sets scenes faces davis] [--seeds N ...]
        [--teacher NET] [--students NET ...] [--steps N] [--times K ...] [--nets FOLDER] [--data DIR]

Materials, training and clips that are left out are those of `benchmarks.temporal`, with clips of 51 frames at
most. Every net learns frames one by one (four times --steps), then goes on for --steps: `student` and
`teacher` as before, `student, temporal` with the temporal loss as ETC prints it. All of them run
through the engine, as in a job: students on every frame; the teacher on every frame, on even keys (every 4,
8, 12 and 25) and on keys of the package's planner at five prices, gaps filled from two sides by flow.

Columns: CPU milliseconds a frame, flow and planning included; mIoU from one confusion matrix; TC of all clips
at once (Eq. 5), of the mean clip (Eq. 6), and over the visible pixels; pop at keys (TC where a key ends a
pair, less that of other pairs; none where every frame is key). Percent, means over seeds. Then the curves of
the teacher at the cost of each student, linear in the logarithm of the cost ("-": outside of what was
measured); and what is best for each budget: from so many milliseconds on, the way of highest mIoU among those
that cost no more. --times: all that again with nets that cost so many times as much, flow and planning as
they are. Last, what even keys win on each student, with the 95 % interval over seeds.

With the same --json, sets and seeds that are there are not run again; rows with other columns, of another
version, are left out and stay in the file.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.clips import SETS, Marks, Material, materials, through
from benchmarks.committed import predict
from benchmarks.pays import at_cost
from benchmarks.temporal import half_width
from benchmarks.temporal_arms import LABELS, Labels, arm, fit, write_net
from vidseg_core.engine import Engine
from vidseg_core.models import Segmenter, build_segmenter
from vidseg_core.propagation import FlowWarp
from vidseg_core.scheduling import build_scheduler

TEACHER, STUDENTS = "tiny:48", ("tiny:8", "tiny:16")
FRAMES = 51
"""Of a clip at most: the last one is key at an interval of 25."""
INTERVALS = (4, 8, 12, 25)
PRICES = (0.1, 0.3, 0.6, 1.0, 2.0)
"""Of a key to the planner, mIoU times frames."""
PLAIN, TEMPORAL, EVERY = "student", "student, temporal", "teacher"
FIXED, PLANNER = "teacher, fixed", "teacher, planner"
WAYS = (PLAIN, TEMPORAL, EVERY, FIXED, PLANNER)
MEASURES = ("miou", "tc_pooled", "tc", "tc_visible", "pop")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One way at one setting."""

    set: str
    seed: int
    way: str
    setting: str
    """The net, the interval or the price."""
    interval: float
    """Frames a key, as it came out."""
    net_ms: float
    """CPU time of the net a frame."""
    other_ms: float
    """CPU time of everything else: pictures, flow, planning, filling."""
    miou: float
    tc_pooled: float
    tc: float
    tc_visible: float
    pop: float | None
    """None where every frame is key."""

    def ms(self, times: float = 1.0) -> float:
        """A frame with nets of so many times the cost."""
        return times * self.net_ms + self.other_ms


# --- measuring ---------------------------------------------------------------------------------------------


def points_of(material: Material, seed: int, folder: Path, options: argparse.Namespace) -> Iterator[Point]:
    """All points of one set and seed, as they are measured."""
    for spec in options.students:
        nets = nets_of(material, spec, ("none", "printed"), seed, options.steps, folder)
        for way, net in zip((PLAIN, TEMPORAL), nets, strict=True):
            yield point(material, seed, way, spec, net, build_scheduler("every"))
    (net,) = nets_of(material, options.teacher, ("none",), seed, options.steps, folder)
    yield point(material, seed, EVERY, options.teacher, net, build_scheduler("every"))
    for interval in options.intervals:
        yield point(material, seed, FIXED, str(interval), net, build_scheduler("fixed", interval=interval))
    for price in options.prices:
        scheduler = build_scheduler("planner", policy="tiny-planner", threshold=price)
        yield point(material, seed, PLANNER, f"{price:g}", net, scheduler)


def nets_of(
    material: Material, spec: str, kinds: Sequence[str], seed: int, steps: int, folder: Path
) -> list[Segmenter]:
    """A net that goes on from one beginning in each of the arms `kinds`; files that are there are read."""
    how: dict[str, Any] = {"spec": spec, "seed": seed, "labels": LABELS.get(material.name, Labels())}
    rare = "-rare" if material.name in LABELS else ""
    names = (f"{material.name}{rare}-{seed}-{spec.replace(':', '')}-{kind}-{steps}" for kind in kinds)
    paths = [folder / f"{name}.safetensors" for name in names]
    if not all(path.is_file() for path in paths):
        base, _ = fit(material, arm("none", material.name), steps=4 * steps, **how)
        for kind, path in zip(kinds, paths, strict=True):
            begin = base.net.state_dict()
            net, _ = fit(material, arm(kind, material.name), steps=steps, begin=begin, **how)
            write_net(net, path)
    return [build_segmenter(spec, weights=str(path)) for path in paths]


def point(material: Material, seed: int, way: str, setting: str, net: Segmenter, scheduler: Any) -> Point:
    """The left-out clips through the engine."""
    sides = "one" if way in (PLAIN, TEMPORAL, EVERY) else "two"
    engine = Engine(net, scheduler, FlowWarp(), sides=sides)
    predict(net, material.test[0].frames_THW3[0])  # a first call costs more
    marks, spent, frames, keys = Marks(material), 0.0, 0, 0
    for clip in material.test:
        started = time.process_time()
        rows = list(through(engine, clip))
        spent += time.process_time() - started
        frames, keys = frames + len(rows), keys + sum(row.is_key for row in rows)
        marks.add(clip, [row.labels_HW for row in rows], [row.is_key for row in rows])
    found, net_s = marks.percent(), engine.stats.seconds["net"]
    return Point(
        set=material.name,
        seed=seed,
        way=way,
        setting=setting,
        interval=frames / keys,
        net_ms=1e3 * net_s / frames,
        other_ms=1e3 * (spent - net_s) / frames,
        miou=found["miou"],
        tc_pooled=found["tc_pooled"],
        tc=found["tc"],
        tc_visible=found["tc_visible"],
        pop=None if math.isnan(found["pop"]) else found["pop"],
    )


# --- at equal cost -----------------------------------------------------------------------------------------


def over_seeds(points: Sequence[Point]) -> list[Point]:
    """The mean of each way and setting of a set, as seed -1."""
    found = []
    for key in dict.fromkeys((p.set, p.way, p.setting) for p in points):
        same = [p for p in points if (p.set, p.way, p.setting) == key]
        numbers = ("interval", "net_ms", "other_ms", *MEASURES[:-1])
        means = {name: statistics.mean(getattr(p, name) for p in same) for name in numbers}
        pops = [p.pop for p in same if p.pop is not None]
        pop = statistics.mean(pops) if pops else None
        found.append(Point(set=key[0], seed=-1, way=key[1], setting=key[2], pop=pop, **means))
    return found


def curve(points: Sequence[Point], way: str) -> list[Point]:
    """A way's points in order of settings; even keys go on to a key on every frame."""
    return [p for p in points if p.way == way or (way == FIXED and p.way == EVERY)]


def at_equal_cost(points: Sequence[Point], way: str, measure: str, cost: float, times: float) -> float:
    """What the teacher reaches this way for so many milliseconds; NaN outside of what was measured."""
    known = [p for p in curve(points, way) if getattr(p, measure) is not None]
    values = [getattr(p, measure) for p in known]
    return at_cost([p.ms(times) for p in known], values, cost) if known else math.nan


def best(points: Sequence[Point], measure: str, times: float) -> list[Point]:
    """What is best for a budget, cheapest first: each is right from its cost to that of the next."""
    found: list[Point] = []
    for one in sorted(points, key=lambda p: (p.ms(times), -getattr(p, measure))):
        if not found or getattr(one, measure) > getattr(found[-1], measure):
            found.append(one)
    return found


# --- the tables and the picture ----------------------------------------------------------------------------


def line(p: Point, times: float = 1.0) -> str:
    pop = "    -" if p.pop is None else f"{p.pop:+5.1f}"
    return (
        f"{p.set:7} {p.way:18} {p.setting:8} a key in {p.interval:4.1f}  {p.ms(times):6.1f} ms  "
        f"mIoU {p.miou:5.2f}  TC pooled {p.tc_pooled:5.2f}  TC {p.tc:5.2f}  "
        f"visible {p.tc_visible:5.2f}  pop {pop}"
    )


def tables(points: Sequence[Point], times: Sequence[float]) -> str:
    """Everything; then by set and cost of nets the ways at equal cost, and what is best for a budget."""
    lines = [line(p) for p in points]
    for name in dict.fromkeys(p.set for p in points):
        here = [p for p in points if p.set == name]
        for factor in times:
            lines += [
                "",
                f"{name}, nets x {factor:g}, at the cost of each student: "
                "mIoU / TC pooled / TC / visible / pop",
            ]
            lines += equal_rows(here, factor)
            lines += [f"{name}, nets x {factor:g}, best mIoU from so many milliseconds on"]
            lines += [line(p, factor) for p in best(here, "miou", factor)]
    return "\n".join(lines)


def equal_rows(points: Sequence[Point], times: float) -> list[str]:
    """A line for each student that learned plainly, the one that learned with neighbours beside it."""
    lines = []
    for one in (p for p in points if p.way == PLAIN):
        steady = [p for p in points if p.way == TEMPORAL and p.setting == one.setting]
        cells = [f"{p.way} {_cells([getattr(p, m) for m in MEASURES])}" for p in (one, *steady)]
        for way in (FIXED, PLANNER):
            values = [at_equal_cost(points, way, m, one.ms(times), times) for m in MEASURES]
            cells.append(f"{way} {_cells(values)}")
        lines.append(f"  {one.setting:8} {one.ms(times):6.1f} ms   " + "   ".join(cells))
    return lines


def _cells(values: Sequence[float | None]) -> str:
    return " / ".join("-" if v is None or math.isnan(v) else f"{v:.1f}" for v in values)


def leads(points: Sequence[Point]) -> str:
    """Even keys of the teacher less each student at the student's cost, seed by seed: means and intervals
    over the seeds in which even keys were measured on both sides of that cost."""
    lines = ["teacher, fixed less student, each seed at its student's cost: mIoU / TC pooled / TC / visible"]
    for name, setting in dict.fromkeys((p.set, p.setting) for p in points if p.way == PLAIN):
        gains = [_gains(points, p) for p in points if (p.set, p.way, p.setting) == (name, PLAIN, setting)]
        there = [one for one in gains if not any(math.isnan(gain) for gain in one)]
        cells = [f"{statistics.mean(one):+.1f} +- {half_width(one):.1f}" for one in zip(*there, strict=True)]
        lines.append(f"  {name:8} {setting:8} {len(there)} seeds  " + " / ".join(cells or ["not measured"]))
    return "\n".join(lines)


def _gains(points: Sequence[Point], student: Point) -> list[float]:
    same = [p for p in points if (p.set, p.seed) == (student.set, student.seed)]
    found = MEASURES[:-1]
    return [at_equal_cost(same, FIXED, m, student.ms(), 1.0) - getattr(student, m) for m in found]


COLOURS: dict[str, str] = {
    PLAIN: "tab:orange",
    TEMPORAL: "tab:red",
    EVERY: "black",
    FIXED: "tab:blue",
    PLANNER: "tab:green",
}
TITLES = {
    "miou": "mIoU",
    "tc_pooled": "TC, Eq. 5, all clips",
    "tc": "TC, Eq. 6",
    "tc_visible": "TC, visible",
    "pop": "pop at keys",
}


def draw(points: Sequence[Point], times: Sequence[float], path: Path) -> None:
    """A row a set: mIoU for each cost of nets, with the colour of what is best; then TC and pop."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [("miou", factor) for factor in times] + [(m, times[0]) for m in MEASURES[1:]]
    sets = list(dict.fromkeys(p.set for p in points))
    size = (2.7 * len(panels), 2.3 * len(sets) + 0.4)
    figure, axes = pyplot.subplots(len(sets), len(panels), figsize=size, squeeze=False)
    for name, row in zip(sets, axes, strict=True):
        here = [p for p in points if p.set == name]
        for (measure, factor), axis in zip(panels, row, strict=True):
            _panel(axis, here, measure, factor)
            title = TITLES[measure] + (f", nets x {factor:g}" if factor != 1 else "")
            axis.set_title(f"{name}: {title}", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("CPU ms a frame", fontsize=8)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncol=len(names), fontsize=8)
    width, height = size
    figure.subplots_adjust(
        left=0.5 / width,
        right=1 - 0.1 / width,
        bottom=0.75 / height,
        top=1 - 0.3 / height,
        hspace=0.35,
        wspace=0.22,
    )
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def _panel(axis: Any, points: Sequence[Point], measure: str, times: float) -> None:
    """Curves by cost; behind mIoU the colour of what is best for a budget."""
    for way in WAYS:
        known = [p for p in curve(points, way) if getattr(p, measure) is not None]
        known.sort(key=lambda p: p.ms(times))
        style = "o" if way == EVERY else ".-"
        axis.plot(
            [p.ms(times) for p in known],
            [getattr(p, measure) for p in known],
            style,
            color=COLOURS[way],
            label=way,
            markersize=5,
        )
    axis.set_xscale("log")
    marks = [ms for ms in (1, 2, 5, 10, 20, 50, 100, 200, 500) if _reached(points, ms, times)]
    axis.set_xticks(marks, [str(ms) for ms in marks])
    axis.set_xticks([], minor=True)
    axis.tick_params(labelsize=7)
    if measure == "miou":
        steps = best(points, measure, times)
        ends = [p.ms(times) for p in steps[1:]] + [max(p.ms(times) for p in points) * 1.1]
        for p, end in zip(steps, ends, strict=True):
            axis.axvspan(p.ms(times), end, color=COLOURS[p.way], alpha=0.12, linewidth=0)


def _reached(points: Sequence[Point], ms: float, times: float) -> bool:
    costs = [p.ms(times) for p in points]
    return min(costs) <= ms <= max(costs)


# --- the command -------------------------------------------------------------------------------------------


def kept(path: Path) -> tuple[list[Point], list[dict[str, Any]]]:
    """The points of a file, and its rows with other columns (another version): how many is said."""
    rows, columns = json.loads(path.read_text(encoding="utf-8")), {field.name for field in fields(Point)}
    others = [row for row in rows if row.keys() != columns]
    if others:
        print(
            f"{path}: {len(others)} of {len(rows)} rows have other columns (another version) and are left out"
        )
    return [Point(**row) for row in rows if row.keys() == columns], others


def run(sets: Sequence[Material], folder: Path, options: argparse.Namespace) -> list[Point]:
    """All points, with those that --json has already; its rows of another version stay in the file."""
    points, others = kept(options.json) if options.json and options.json.is_file() else ([], [])
    for seed in options.seeds:
        for material in sets:
            if any((p.set, p.seed) == (material.name, seed) for p in points):
                continue
            for p in points_of(material, seed, folder, options):
                points.append(p)
                print(f"seed {seed}  {line(p)}", flush=True)
            if options.json:
                rows = [*others, *(asdict(p) for p in points)]
                options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return points


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--teacher", default=TEACHER)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS))
    parser.add_argument("--intervals", type=int, nargs="+", default=list(INTERVALS))
    parser.add_argument("--prices", type=float, nargs="+", default=list(PRICES))
    parser.add_argument("--steps", type=int, default=50, help="four times as many come before")
    parser.add_argument("--times", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--nets", type=Path, help="folder that keeps what was trained")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    parser.add_argument("--data")
    return parser.parse_args(given)


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = options.nets or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        points = run(list(materials(options.sets, options.data, FRAMES)), folder, options)
    means = over_seeds(points)
    print(tables(means, options.times))
    print(leads(points))
    if options.png:
        draw(means, options.times, options.png)


if __name__ == "__main__":
    main()
