"""The part `milliseconds`: a net on regions against itself on every whole frame, at equal CPU time.

Whole frames, and grids with what is seen around a crop (`WAYS`), each through `Engine.step` from two sides
with `fixed`, `frame_difference`, `split` and the planner of the package at a few settings. What each costs is
measured, in CPU seconds of this process, and said in two ways: N alone, in calls of N on a whole frame
(`calls`; the rest is nothing beside an expensive net), and all that the engine does, in milliseconds a frame.
Crops are aligned as the net pads them, with an overlap of 16 pixels.

Ways are compared at the costs that whole frames have with N on so many of them (`--shares`), between the two
settings next to it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from benchmarks.regions.common import Row, at_share, confusion_of, score
from benchmarks.regions.scheduled import HORIZON, engine_of, run_through, share_of
from benchmarks.two_sided import Clip
from vidseg_core.config.catalogue import SCHEDULERS
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.models import build_segmenter
from vidseg_core.models.split import SplitSegmenter
from vidseg_core.scheduling import build_scheduler
from vidseg_core.scheduling.split import furthest_for

OVERLAP = 16
WAYS = (("1x1", "none"), ("2x2", "none"), ("2x2", "remembered"), ("3x3", "none"))
SETTINGS: Mapping[str, Sequence[float]] = {
    "fixed": (6, 12, 24, 72),
    "frame_difference": (6.0, 12.0, 24.0),
    "planner": (0.1, 0.5, 2.0),
    "split": (0.5, 2.0, 8.0),
}
"""Interval or thresholds; of those that look ahead what a key costs, in frames' worth of quality."""
SPLIT_SHARE = 0.1
"""The longest interval of `split` goes with so many keys."""


def milliseconds(
    clip: Clip, net_name: str, grids: Sequence[str] | None = None, kinds: Sequence[str] | None = None
) -> Iterator[Row]:
    """A row for each way and setting; of all grids and schedulers, or these (and whole frames)."""
    net = build_segmenter(net_name)
    assert isinstance(net, SplitSegmenter)
    in_calls, size = ChunkedNet(net, level="labels", batch=1, device="cpu"), len(net.class_names)
    in_calls.run(clip.frames[:2])
    started = time.process_time()
    truth = [labels_HW for labels_HW, _ in in_calls.run(clip.frames)]
    call = (time.process_time() - started) / len(clip.frames)
    ways = [way for way in WAYS if not grids or way[0] in ("1x1", *grids)]
    settings = [(kind, setting) for kind in kinds or SETTINGS for setting in SETTINGS[kind]]
    for (kind, setting), (grid, context) in product(settings, ways):
        asks = SCHEDULERS[kind].asks
        if asks and context != "none":  # they do not go together
            continue
        regions = RegionsConfig(
            grid=grid,
            overlap=OVERLAP,
            align=net.net.multiple,
            context=context,  # type: ignore[arg-type]
        ).used
        most = furthest_for(SPLIT_SHARE) if asks else HORIZON
        engine = engine_of(build_segmenter(net_name), regions, _scheduler(kind, setting), most=most)
        rows = run_through(engine, clip, regions)
        seconds = engine.stats.seconds
        counts_CC = sum(confusion_of(row.labels_HW, truth[row.frame_index], size) for row in rows)
        yield {
            "clip": clip.name, "net": net_name, "grid": grid, "context": context, "keys": kind,
            "setting": setting, "share": share_of(rows), "miou": score(counts_CC),  # type: ignore[arg-type]
            "calls": seconds["net"] / call / len(rows), "call_ms": 1e3 * call,
            "rest_ms": 1e3 * (sum(seconds.values()) - seconds["net"]) / len(rows),
        }  # fmt: skip


def _scheduler(kind: str, setting: float) -> object:
    if kind == "fixed":
        return build_scheduler("fixed", interval=int(setting))
    more = {"policy": "tiny-planner"} if kind == "planner" else {}
    return build_scheduler(kind, threshold=setting, **more)


def priced(rows: Sequence[Row]) -> list[Row]:
    """The rows with what they cost, `calls` and `ms`, less the noise of single runs: what N takes for a pixel
    is that of all runs of a way with a scheduler, beside all runs of whole frames; what the rest takes is the
    median of these runs."""

    def way(row: Row) -> tuple[str, ...]:
        return row["grid"], row["context"], row["keys"]

    def paid(alike: Sequence[Row]) -> float:
        return sum(row["calls"] for row in alike) / sum(row["share"] for row in alike)

    whole = paid([row for row in rows if row["grid"] == "1x1"])
    call_ms, found = float(np.median([row["call_ms"] for row in rows])), []
    for row in rows:
        alike = [one for one in rows if way(one) == way(row)]
        a_pixel = 1.0 if row["grid"] == "1x1" else paid(alike) / whole
        calls, rest = row["share"] * a_pixel, float(np.median([one["rest_ms"] for one in alike]))
        ms = rest + calls * call_ms
        found.append(
            row | {"calls": calls, "ms": ms, "rest_ms": rest, "call_ms": call_ms, "a_pixel": a_pixel}
        )
    return found


def at_equal_cost(rows: Sequence[Row], shares: Sequence[float]) -> Iterator[str]:
    """Fidelity of every way and scheduler, mean over clips, against the best one of whole frames."""
    clips, rows = list(dict.fromkeys(row["clip"] for row in rows)), priced(rows)
    whole = [row for row in rows if row["grid"] == "1x1" and row["keys"] == "fixed"]
    for case in dict.fromkeys((r["grid"], r["context"], r["keys"], r["a_pixel"], r["rest_ms"]) for r in rows):
        *way, paid, rest = case
        yield f"{'  '.join(way):34} N takes {paid:.2f} for a pixel, the rest {rest:.1f} ms a frame"
    for share, unit in product(shares, ("calls", "ms")):
        cost = share if unit == "calls" else whole[0]["rest_ms"] + share * whole[0]["call_ms"]
        found: dict[tuple[str, str, str], np.ndarray] = {}
        for case in dict.fromkeys((row["grid"], row["context"], row["keys"]) for row in rows):
            found[case] = 100 * np.array([_worth(rows, clip, case, unit, cost) for clip in clips])
        of_frames = {case: value_C.mean() for case, value_C in found.items() if case[0] == "1x1"}
        rival = max(of_frames, key=lambda case: np.nan_to_num(of_frames[case], nan=-np.inf))
        for case, value_C in found.items():
            gain_C = value_C - found[rival]
            each = " ".join(f"{gain:+.1f}" for gain in gain_C)
            yield (
                f"{100 * share:g} %, equal {unit:5}  {'  '.join(case):34} {value_C.mean():5.1f}"
                f"  {gain_C.mean():+.1f} against {rival[2]} of whole frames ({each})"
            )


def _worth(rows: Sequence[Row], clip: str, case: tuple[str, str, str], unit: str, cost: float) -> float:
    """A clip's fidelity at this cost; between settings it goes with the logarithm of the cost."""
    mine = [r for r in rows if r["clip"] == clip and (r["grid"], r["context"], r["keys"]) == case]
    return at_share([(math.log(row[unit]), row["miou"]) for row in mine], math.log(cost))
