"""Online schedulers on clips that they never saw, each clip begun at several frames.

    python -m benchmarks.starts --tables DIR [--json FILE] [--seeds N] [--starts N]

As `unseen` (clips left out in turn, one operating point for all), but with less luck in the figures: which
frames happen to be keys moves the share of the gap on some ten clips by 10 to 15 points. So every schedule
is made again from several start frames, quality is read at three intervals around 10, 25 and 50, and both are
averaged, for the baseline of even keys too; the unit is the gap fixed -> oracle of the whole clips. `even` is
the scheduler `fixed` once more, with one interval for all clips: how far it is from 0 says what luck is left.
90 % over clips.

DIR: tables with the feature sets scores and flow and two-sided qualities, `--key_stride 3` or less.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.score_walk import SCORES, run_scores
from benchmarks.unseen import (
    INTERVALS,
    RESAMPLES,
    SIDES,
    decision_net,
    even_points,
    loss_of,
    paced,
    read_at,
    summed,
    thresholds_of,
    worth_of,
)
from vidseg_core.episodes.oracle import divide, one_sided_curve, two_sided_curve
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.walk import counts_T
from vidseg_core.models.decision import DecisionNet

AROUND = (0.85, 1.0, 1.18)
"""Intervals that are read, in units of the one that is shown."""
APART = 15
"""Frames between starts."""
LEAST = 60
"""Frames that must be left of a clip."""
Keys = list[np.ndarray]
Points = dict[tuple[str, int, int], dict[str, np.ndarray]]
"""(scheduler, clip, start) -> sides -> [targets, 2], mean over seeds."""


def cut(table: EpisodeTable, start: int) -> EpisodeTable:
    """The clip from a frame on."""
    two = table.two_sided_TL1
    return replace(
        table,
        quality_TL1=table.quality_TL1[start:],
        deviation_TL1F=table.deviation_TL1F[start:],
        two_sided_TL1=None if two is None else two[start:],
        grays_Thw=None,
        masks_Thw=None,
    )


def cuts_of(table: EpisodeTable, starts: int) -> list[EpisodeTable]:
    return [cut(table, n * APART) for n in range(starts) if n == 0 or table.frames - n * APART >= LEAST]


def measure(tables: Sequence[EpisodeTable], seeds: int, starts: int) -> list[dict[str, object]]:
    """A row for each scheduler, sides and interval."""
    cuts = [cuts_of(table, starts) for table in tables]
    points: Points = {}
    for clip in range(len(tables)):
        rest = [table for place, table in enumerate(tables) if place != clip]
        for name, runs in _runs(rest, cuts[clip], seeds).items():
            for start, table in enumerate(cuts[clip]):
                points[name, clip, start] = {
                    sides: np.mean([[worth_of(table, k, sides) for k in run[start]] for run in runs], axis=0)
                    for sides in SIDES
                }
    names = list(dict.fromkeys(name for name, _, _ in points))
    return [row for sides in SIDES for row in _rows(tables, cuts, points, names, sides)]


def _runs(
    rest: Sequence[EpisodeTable], cuts: Sequence[EpisodeTable], seeds: int
) -> dict[str, list[list[Keys]]]:
    """Scheduler -> seed -> cut -> keys for each target."""
    scores: dict[str, list[Callable[[EpisodeTable], np.ndarray]]] = {
        "even" if name == "fixed" else name: [lambda t, s=score: s(t, 0)] for name, score in SCORES.items()
    }
    nets: list[DecisionNet] = []
    for seed in range(seeds):
        nets.append(decision_net(rest, seed))
        loss = loss_of(nets[-1])
        scores.setdefault("expected_loss", []).append(loss)
        scores.setdefault("confidence_sum", []).append(lambda t, f=loss: summed(f(t)))
    found = {name: [_by_score(score, rest, cuts) for score in each] for name, each in scores.items()}
    return found | {"paced": [paced(rest, cuts, seed, net) for seed, net in enumerate(nets)]}


def _by_score(
    score: Callable[[EpisodeTable], np.ndarray], rest: Sequence[EpisodeTable], cuts: Sequence[EpisodeTable]
) -> list[Keys]:
    chosen = thresholds_of(score, rest)
    return [[np.flatnonzero(row) for row in run_scores(table, score(table), chosen)] for table in cuts]


def _rows(
    tables: Sequence[EpisodeTable],
    cuts: Sequence[Sequence[EpisodeTable]],
    points: Points,
    names: Sequence[str],
    sides: str,
) -> list[dict[str, object]]:
    curves = [(one_sided_curve if sides == "one" else two_sided_curve)(table) for table in tables]
    even = [[even_points(table, sides) for table in part] for part in cuts]
    whole, frames = np.sum([part[0] for part in even], axis=0), sum(table.frames for table in tables)
    counted = sum(int(counts_T(table).sum()) for table in tables)
    clips, rows = np.arange(len(tables)), []
    for interval in (n for n in INTERVALS if 2 * n * max(AROUND) <= frames / len(tables)):
        gaps = [
            (divide(curves, round(frames / n)).total - read_at(whole, frames / n)) / counted
            for n in (interval * part for part in AROUND)
        ]

        def share(name: str, picks: np.ndarray, interval: int = interval, gaps: list[float] = gaps) -> float:
            gains = []
            for start in range(max(len(part) for part in cuts)):
                there = [c for c in picks if start < len(cuts[c])]
                if not there:
                    continue
                mine = np.sum([points[name, c, start][sides] for c in there], axis=0)
                base = np.sum([even[c][start] for c in there], axis=0)
                length = sum(cuts[c][start].frames for c in there)
                for part, gap in zip(AROUND, gaps, strict=True):
                    keys = length / (interval * part)
                    gains.append((read_at(mine, keys) - read_at(base, keys)) / length / gap)
            return float(np.mean(gains))

        for name in names:
            rng = np.random.default_rng(0)
            drawn = [share(name, rng.integers(0, len(clips), len(clips))) for _ in range(RESAMPLES)]
            low, high = np.quantile(drawn, (0.05, 0.95))
            rows.append(
                {
                    "scheduler": name,
                    "sides": sides,
                    "interval": interval,
                    "share": share(name, clips),
                    "low": float(low),
                    "high": float(high),
                }
            )
    return rows


def show(rows: Sequence[dict[str, object]]) -> None:
    intervals = list(dict.fromkeys(row["interval"] for row in rows))
    print(f"{'scheduler':18} {'sides':5} " + " ".join(f"| about {n} frames        " for n in intervals))
    for sides in SIDES:
        for name in dict.fromkeys(row["scheduler"] for row in rows):
            cells = [
                f"{row['share']:+5.0%} [{row['low']:+5.0%}, {row['high']:+5.0%}]"
                for row in rows
                if (row["scheduler"], row["sides"]) == (name, sides)
            ]
            print(f"{name!s:18} {sides:5} " + " ".join(f"| {cell:22}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tables", required=True, help="folder that build-episodes wrote")
    parser.add_argument("--seeds", type=int, default=2, help="nets per scheduler that learns")
    parser.add_argument("--starts", type=int, default=6, help="starts of each clip, 15 frames apart")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(load_tables(options.tables), options.seeds, options.starts)
    show(rows)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
