"""Where a better propagator pays, and where more keys do: quality against CPU seconds a frame.

    python -m benchmarks.match --fold 0 --ways match --intervals 3 6 12 25 50 --json ROWS.json
    python -m benchmarks.pays ROWS.json [ROWS.json ...] [--net 0.05 0.5 2 10] [--sides one|two]
        [--png FILE] [--json FILE]

Reads what `benchmarks.match` measured: mIoU and milliseconds of a frame, keys included, by interval. With a
net N of so many seconds a frame costs N / interval + ms. A propagator's curve is what a kind's clips reach at
each cost, linear between its intervals in the logarithm of the cost; the table says for each N, and each
interval of flow, by how many points the others are better than flow when they cost the same ("-": they cost
more than that with every interval measured, or less). Clips that lack an interval are left out of a kind.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

NETS = (0.05, 0.5, 2.0, 10.0)
FLOW = "flow"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What one propagator reaches on one kind of footage."""

    kind: str
    way: str
    clips: int
    intervals: tuple[int, ...]
    miou: tuple[float, ...]
    ms: tuple[float, ...]

    def costs(self, net_s: float) -> np.ndarray:
        """Seconds a frame at each interval."""
        return net_s / np.array(self.intervals) + np.array(self.ms) / 1e3

    def at(self, net_s: float, cost: float) -> float:
        """mIoU at this cost; NaN outside of what was measured."""
        return at_cost(self.costs(net_s), self.miou, cost)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One propagator beside flow, where both cost the same."""

    kind: str
    net_s: float
    flow_interval: int
    cost_s: float
    flow_miou: float
    way: str
    interval: float
    """With which it costs the same; NaN: it costs more with every interval that was measured."""
    miou: float

    @property
    def gain(self) -> float:
        """Points."""
        return 100 * (self.miou - self.flow_miou)


def at_cost(costs: Sequence[float] | np.ndarray, values: Sequence[float], cost: float) -> float:
    """The value at this cost, linear in the logarithm of the costs; NaN outside of them."""
    order = np.argsort(costs)
    known, reached = np.log(np.asarray(costs)[order]), np.asarray(values)[order]
    inside = known[0] - 1e-9 <= np.log(cost) <= known[-1] + 1e-9
    return float(np.interp(np.log(cost), known, reached)) if inside else float("nan")


def curves_of(rows: Sequence[Mapping[str, Any]], sides: str) -> list[Curve]:
    """A curve for each kind and way, over the clips that have all of a kind's intervals."""
    rows = [row for row in rows if row["sides"] == sides]
    found = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        here = [row for row in rows if row["kind"] == kind]
        intervals = _shared(here)
        clips = [
            clip
            for clip in dict.fromkeys(row["clip"] for row in here)
            if set(intervals) <= {row["interval"] for row in here if row["clip"] == clip}
        ]
        for way in dict.fromkeys(row["way"] for row in here):
            of_way = [row for row in here if row["way"] == way and row["clip"] in clips]
            means = [
                [float(np.mean([r[what] for r in of_way if r["interval"] == i])) for i in intervals]
                for what in ("miou", "ms")
            ]
            found.append(
                Curve(
                    kind=kind,
                    way=way,
                    clips=len(clips),
                    intervals=tuple(intervals),
                    miou=tuple(means[0]),
                    ms=tuple(means[1]),
                )
            )
    return found


def _shared(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Intervals that at least half of the clips have."""
    clips = len({row["clip"] for row in rows})
    having: dict[int, set[str]] = {}
    for row in rows:
        having.setdefault(row["interval"], set()).add(row["clip"])
    return sorted(interval for interval, of in having.items() if 2 * len(of) >= clips)


def compared(curves: Sequence[Curve], nets: Sequence[float]) -> list[Row]:
    """Each way beside flow at what flow costs with each interval."""
    rows = []
    for flow in [curve for curve in curves if curve.way == FLOW]:
        others = [curve for curve in curves if curve.kind == flow.kind and curve.way != FLOW]
        for net_s in nets:
            for interval, cost, miou in zip(flow.intervals, flow.costs(net_s), flow.miou, strict=True):
                for other in others:
                    rows.append(
                        Row(
                            kind=flow.kind,
                            net_s=net_s,
                            flow_interval=interval,
                            cost_s=float(cost),
                            flow_miou=miou,
                            way=other.way,
                            interval=_interval_at(other, net_s, float(cost)),
                            miou=other.at(net_s, float(cost)),
                        )
                    )
    return rows


def _interval_at(curve: Curve, net_s: float, cost: float) -> float:
    """Between the keys that so much pays."""
    ms = float(np.mean(curve.ms)) / 1e3
    return net_s / (cost - ms) if cost > ms else float("nan")


def table(curves: Sequence[Curve], rows: Sequence[Row], nets: Sequence[float]) -> str:
    """Gain in points over flow at the same cost."""
    lines = ["kind     clips way      N s   " + "gain over flow where flow has a key every"]
    for curve in [curve for curve in curves if curve.way != FLOW]:
        for net_s in nets:
            here = [row for row in rows if (row.kind, row.way, row.net_s) == (curve.kind, curve.way, net_s)]
            cells = (
                f"{row.flow_interval}: " + (f"{row.gain:+.1f}" if np.isfinite(row.miou) else "-")
                for row in here
            )
            lines.append(f"{curve.kind:8} {curve.clips:5} {curve.way:8} {net_s:<5g} " + "   ".join(cells))
    return "\n".join(lines)


def draw(curves: Sequence[Curve], nets: Sequence[float], path: Path) -> None:
    """One row a kind, one column a net."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    colours = {way: f"C{n}" for n, way in enumerate(dict.fromkeys(curve.way for curve in curves))}
    kinds = list(dict.fromkeys(curve.kind for curve in curves))
    figure, axes = pyplot.subplots(
        len(kinds), len(nets), figsize=(3 * len(nets), 2.3 * len(kinds)), squeeze=False, sharey="row"
    )
    for kind, line in zip(kinds, axes, strict=True):
        for net_s, axis in zip(nets, line, strict=True):
            for curve in [curve for curve in curves if curve.kind == kind]:
                axis.plot(curve.costs(net_s), curve.miou, colours[curve.way], marker=".", label=curve.way)
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(ticker.NullFormatter())
            axis.set_title(f"{kind}, N {net_s:g} s", fontsize=9)
            axis.tick_params(labelsize=7)
        line[0].set_ylabel("mIoU", fontsize=8)
        line[0].legend(fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("CPU seconds a frame", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--net", type=float, nargs="+", default=list(NETS), help="seconds of N a frame")
    parser.add_argument("--sides", choices=("one", "two"), default="two")
    parser.add_argument("--png", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    measured = [row for file in options.rows for row in json.loads(file.read_text(encoding="utf-8"))]
    curves = curves_of(measured, options.sides)
    rows = compared(curves, options.net)
    for curve in curves:
        points = ", ".join(
            f"{i}: {m:.3f} ({ms:.0f} ms)"
            for i, m, ms in zip(curve.intervals, curve.miou, curve.ms, strict=True)
        )
        print(f"{curve.kind:8} {curve.way:8} {points}")
    print(table(curves, rows, options.net))
    if options.png:
        draw(curves, options.net, options.png)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
