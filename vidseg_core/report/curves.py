"""The curves of DVRL Fig. 4 and 5: quality against key interval and against speed, and the share closed.

Model: a method's points are its operating points over all clips together. Between two of them quality is
taken as linear in keys per frame (1 / AKI); up to `NEAR` beyond the last one its own quality stands, farther
out nothing is claimed. The share that a method closes at
an interval is (its quality - fixed) / (oracle - fixed), with fixed and oracle of the same propagation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from vidseg_core.report.style import EVERY_HEX, Look, Plot, legend, narrow_size, plain

Row = Mapping[str, Any]
QUALITY_WORDS = {
    "miou": "mIoU against the labels",
    "fidelity": "fidelity (mIoU against the net on every frame)",
}
NEAR = 1.15
"""Ratio of intervals that are taken for one another at the ends of a curve."""
FEW_TICKS, MORE_TICKS = 5, (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 50, 60, 80, 100)
TICKS = (1, 2, 3, 4, 6, 8, 12, 18, 25, 35, 50, 75, 100, 150, 250, 500, 1000)


@dataclass(frozen=True, eq=False)
class Curve:
    """One method at its operating points, by AKI."""

    name: str
    scheduler: str
    propagation: tuple[str, str, str, str]
    """Propagator, level, sides, flow."""
    aki: np.ndarray
    quality: np.ndarray
    fps: np.ndarray
    rows: tuple[Row, ...]

    def at(self, aki: float) -> float:
        """Quality at an interval; NaN where it was not measured."""
        if not len(self.aki) or not self.aki.min() / NEAR <= aki <= self.aki.max() * NEAR:
            return math.nan
        rate = 1.0 / self.aki[::-1]
        return float(np.interp(1.0 / aki, rate, self.quality[::-1]))

    def nearest(self, aki: float) -> Row:
        """The operating point whose interval is nearest, by ratio."""
        return self.rows[int(np.argmin(np.abs(np.log(self.aki / aki))))]


def curves_of(rows: Sequence[Row], quality: str) -> list[Curve]:
    """The methods of an evaluation; rows without quality or keys are left out."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if number(row[quality]) and number(row["aki"]):
            key = (row["method"], row["propagator"], row["level"], row["sides"], row["flow"])
            groups.setdefault(key, []).append(row)
    shown = [key[0] for key in groups]
    found = []
    for key, mine in groups.items():
        mine = sorted(mine, key=lambda row: row["aki"])
        name = key[0] if shown.count(key[0]) == 1 else f"{key[0]} ({key[2]}, {key[3]}-sided)"
        found.append(
            Curve(
                name=name,
                scheduler=mine[0]["scheduler"],
                propagation=(key[1], key[2], key[3], key[4]),
                aki=np.array([row["aki"] for row in mine]),
                quality=np.array([row[quality] for row in mine]),
                fps=np.array([row["fps"] if number(row["fps"]) else math.nan for row in mine]),
                rows=tuple(mine),
            )
        )
    return found


def number(value: Any) -> bool:
    return value is not None and not math.isnan(value)


def shares(curves: Sequence[Curve], intervals: Sequence[float]) -> dict[str, list[float]]:
    """For each method the share of the gap between fixed and oracle that it closes at these intervals.

    NaN where one of the three was not measured, or where the gap is below 0.0005. Empty without an oracle.
    """
    found: dict[str, list[float]] = {}
    for curve in curves:
        same = [other for other in curves if other.propagation == curve.propagation]
        fixed = next((other for other in same if other.scheduler == "fixed"), None)
        oracle = next((other for other in same if other.scheduler == "oracle"), None)
        if fixed is None or oracle is None or curve.scheduler in ("oracle", "every"):
            continue
        values = []
        for interval in intervals:
            low, high, mine = fixed.at(interval), oracle.at(interval), curve.at(interval)
            gap = high - low
            values.append((mine - low) / gap if gap > 0.0005 else math.nan)
        found[curve.name] = values
    return found


def aki_plot(curves: Sequence[Curve], look: Mapping[str, Look], quality: str, name: str) -> Plot:
    """Quality against key interval (DVRL Fig. 4, top)."""

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        shown = _with_keys(curves)
        for curve in curves:
            if curve in shown:
                _line(axes, curve.aki, curve.quality, look[curve.name], curve.name)
            else:
                name_of = plain(curve.name)
                axes.axhline(curve.quality[0], color=EVERY_HEX, linestyle=":", linewidth=1.4, label=name_of)
        _interval_axis(axes, np.concatenate([curve.aki for curve in shown]))
        axes.set_xlabel("average key interval, AKI (frames, logarithmic)")
        axes.set_ylabel(_worded(quality, narrow))
        legend(axes, narrow)

    alt = "Quality against average key interval, a line for each method."
    return Plot(name=name, alt=alt, draw=draw, narrow=_narrow(curves))


def fps_plot(
    curves: Sequence[Curve], look: Mapping[str, Look], quality: str, name: str, *, of: str = "core"
) -> Plot:
    """Quality against speed (DVRL Fig. 4, bottom). `of`: what the seconds are those of."""

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for curve in curves:
            _line(axes, curve.fps, curve.quality, look[curve.name], curve.name)
        axes.set_xlabel(
            f"frames per second of one {of}" if narrow else f"speed (frames per second of one {of})"
        )
        axes.set_xlim(left=0)
        axes.set_ylabel(_worded(quality, narrow))
        legend(axes, narrow)

    alt = "Quality against frames per second, a line for each method."
    return Plot(name=name, alt=alt, draw=draw, narrow=_narrow(curves))


def tc_plot(curves: Sequence[Curve], look: Mapping[str, Look], name: str, kind: str = "tc") -> Plot:
    """Temporal consistency and pop at keys against key interval; `kind`: the column of the first."""
    pop = f"{kind}_pop"

    def draw(figure: Figure, narrow: bool) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True)
        shown = _with_keys(curves)
        for curve in shown:
            values = {n: [row[n] if number(row[n]) else math.nan for row in curve.rows] for n in (kind, pop)}
            _line(top, curve.aki, np.array(values[kind]), look[curve.name], curve.name)
            _line(bottom, curve.aki, np.array(values[pop]), look[curve.name], "")
        bottom.axhline(0, color="#666666", linewidth=0.8)
        for curve in curves:
            if curve not in shown and number(curve.rows[0][kind]):
                name_of, tc = plain(curve.name), curve.rows[0][kind]
                top.axhline(tc, color=EVERY_HEX, linestyle=":", linewidth=1.4, label=name_of)
        _interval_axis(bottom, np.concatenate([curve.aki for curve in shown]))
        bottom.set_xlabel("average key interval, AKI (frames, logarithmic)")
        top.set_ylabel("TC (mIoU)" if kind == "tc" else "TC, visible")
        bottom.set_ylabel("pop at keys\n(TC difference)")
        legend(top, narrow)

    return Plot(
        name=name,
        alt="Temporal consistency and its drop at key frames against average key interval.",
        draw=draw,
        wide=(8.2, 5.0),
        narrow=_narrow(curves, 4.0),
    )


def _with_keys(curves: Sequence[Curve]) -> list[Curve]:
    """Curves that save calls of the net; what does not is a line across, where there is anything else."""
    return [curve for curve in curves if curve.scheduler != "every"] or list(curves)


def _narrow(curves: Sequence[Curve], height: float = 3.0) -> tuple[float, float]:
    """Size on a phone: the legend lies below and needs its room."""
    return narrow_size([curve.name for curve in curves], height)


def _line(axes: Any, x: np.ndarray, y: np.ndarray, look: Look, label: str) -> None:
    axes.plot(
        x,
        y,
        color=look.colour,
        marker=look.marker,
        linestyle=look.dash,
        label=plain(label) if label else None,
        markersize=9 if look.marker == "*" else 5,
    )


def _interval_axis(axes: Any, values: np.ndarray) -> None:
    """Logarithmic, with ticks at intervals that people use."""
    low, high = float(values.min()), float(values.max())
    axes.set_xscale("log")
    axes.set_xlim(low * 0.9, high * 1.1)
    inside = [tick for tick in TICKS if low * 0.9 <= tick <= high * 1.1]
    if len(inside) < FEW_TICKS:
        inside = [tick for tick in MORE_TICKS if low * 0.9 <= tick <= high * 1.1]
    axes.xaxis.set_major_locator(FixedLocator(inside or [low]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _worded(quality: str, narrow: bool) -> str:
    words = QUALITY_WORDS[quality]
    return (
        words.replace(" (", "\n(").replace(" against", "\nagainst") if narrow and len(words) > 26 else words
    )
