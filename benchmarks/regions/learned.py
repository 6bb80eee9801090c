"""The part `learned`: schedulers that learned on tables of regions, on other clips.

Of each clip and grid what every key and every two keys make of the regions (`counted`: labels as N, keys
every third frame, two sides), as tables. In turn a third of the clips is left out; the others teach a
decision net (`train-decision`) and a planner (`train-planner`) of the grid, one file for all of its regions.
On the clips left out their thresholds are set so that the share of key pixels is the asked one. Beside them
even keys, `split`, which learns nothing, and the best keys under one budget of pixels. The score is mean IoU
of the clip.

What is learned, and what is best, is asked in a quality (`QUALITIES`, as of `build-episodes`): wrong pixels
weighted by class, so that regions add up to the clip's mean IoU (`weighted`); the share of pixels that agree
with N (`accuracy`, here of the frame's pixels, which adds up, too); or the mean IoU of the region, frame by
frame (`labels`).

Of the differences between two ways the mean over clips and its 95 % interval (bootstrap over clips) are said,
for each kind and for the mean of the kinds; of a grid also what is left if it is taken only where it wins on
the other clips of the kind.

Legend: P thresholds, C clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.regions.common import Row, Schedules, around, at_share
from benchmarks.regions.counted import STRIDE, Cut, cut_of, share_weights, tables_of, weights_of
from benchmarks.regions.exact import best, even
from benchmarks.two_sided import Clip
from vidseg_core.calibration.choice import DRAWS
from vidseg_core.calibration.ways import least_gain
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.episodes.on_tables import LookaheadTable, Scored, SplitTable
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_set import join_tables
from vidseg_core.models.planner import PlannerFacts
from vidseg_core.scheduling.lookahead_features import LOOKAHEAD_FEATURES, Pairs
from vidseg_core.scheduling.lookahead_window import class_shares
from vidseg_core.scheduling.planner import PlannerCore
from vidseg_core.scheduling.split import furthest_for
from vidseg_core.training.decision_loop import DecisionOptions, train_decision
from vidseg_core.training.planner_fit import cross_fit, lesson_of

GRIDS = ("1x1", "2x2", "3x3")
FOLDS, THRESHOLDS, HALVINGS = 3, 160, 12
INTERVALS = (10.0, 25.0)
PLANNED = 2 * STRIDE
"""Frames from one that a planner may take to the next: a window is looked at after each key."""
QUALITIES: Mapping[str, Callable[[Clip], np.ndarray | None]] = {
    "weighted": weights_of,
    "accuracy": share_weights,
    "labels": lambda clip: None,
}


class Planned:
    """A scheduler that looks ahead, on one clip."""

    def __init__(self, cut: Cut, walked: Sequence[LookaheadTable | SplitTable]) -> None:
        self._walked = walked
        self._cut, self._tried = cut, list[tuple[float, list[np.ndarray]]]()

    def near(self, share: float) -> Schedules:
        """At prices around the share, by halving."""
        low, high = 1e-6, 90.0
        for _ in range(HALVINGS):
            price = math.sqrt(low * high)
            self._tried.append((price, [walk.keys(price) for walk in self._walked]))
            fits = self._cut.share(self._tried[-1][1]) <= share
            low, high = (low, price) if fits else (price, high)
        return [keys for _, keys in self._tried]


def halved_gaps(cut: Cut, tables: Sequence[EpisodeTable], share: float) -> Planned:
    """`split` of the clip's regions, whose longest interval goes with the share: nothing is learned."""
    areas = [part.pixels / cut.frame_pixels for part in cut.parts]
    firsts = [table.masks_Thw[0] for table in tables if table.masks_Thw is not None]
    shares_K = np.average([class_shares(labels_hw) for labels_hw in firsts], axis=0, weights=areas)
    known = [
        replace(table, area=area, class_shares_K=shares_K) for table, area in zip(tables, areas, strict=True)
    ]
    most = min(tables[0].horizon, furthest_for(share))
    return Planned(cut, [SplitTable(table, max_interval=most) for table in known])


class Learned:
    """What learned of one grid on the clips outside of each fold."""

    def __init__(self, tables: Sequence[Sequence[EpisodeTable]]) -> None:
        """`tables`: of each clip, a table per region."""
        flat = [table for of_clip in tables for table in of_clip]
        videos = sorted({table.video for table in flat})
        self.fold_of = {video: number % FOLDS for number, video in enumerate(videos)}
        reach = min(table.horizon for table in flat) // PLANNED * PLANNED
        found = cross_fit(
            [lesson_of(table, PLANNED, reach) for table in flat], folds=FOLDS, intervals=INTERVALS
        )
        self._planners = {
            self.fold_of[table.video]: model for table, model in zip(flat, found.fold_models, strict=True)
        }
        self._facts = PlannerFacts(
            feature_names=LOOKAHEAD_FEATURES,
            stride=PLANNED,
            window=min(180, 2 * reach),
            reach=reach,
            fingerprint={},
            tables="",
            strength=found.strength,
        )
        self._nets = {
            fold: train_decision(
                join_tables([table for table in flat if self.fold_of[table.video] != fold]),
                None,
                DecisionOptions(steps=1500),
            ).net
            for fold in range(FOLDS)
        }

    def planner(self, cut: Cut, tables: Sequence[EpisodeTable]) -> Planned:
        core = PlannerCore(self._planners[self.fold_of[cut.clip.name]], self._facts, pairs=Pairs(most=3000))
        return Planned(cut, [LookaheadTable(core, table, two_sided=True) for table in tables])

    def decision(self, cut: Cut, tables: Sequence[EpisodeTable]) -> Schedules:
        """The net's keys among every third frame, by many thresholds."""
        net = self._nets[self.fold_of[cut.clip.name]]
        scores = [Scored(net.key_rate, join_tables([table])) for table in tables]
        horizon = tables[0].horizon
        met = np.concatenate([each.met(np.array([-np.inf, np.inf]), horizon) for each in scores])
        tried = np.quantile(met[np.isfinite(met)], np.linspace(0, 1, THRESHOLDS))
        runs = [each.keys(tried, horizon) for each in scores]
        return [[np.flatnonzero(run[place]) for run in runs] for place in range(THRESHOLDS)]


# --- what is run -----------------------------------------------------------------------------------------


def learned(
    kinds: dict[str, list[Clip]],
    shares: Sequence[float],
    *,
    grids: Sequence[str] = GRIDS,
    overlap: int = 0,
    quality: str = "weighted",
    kept: Path | None = None,
) -> Iterator[Row]:
    """All clips at all grids; `kinds`: by kind of material, at the size that flow is estimated at."""
    clips = [(kind, clip) for kind, found in kinds.items() for clip in found]
    for grid in grids:
        regions = RegionsConfig(grid=grid, overlap=overlap if grid != "1x1" else 0)
        cuts = [cut_of(clip, regions, kept) for _, clip in clips]
        tables = [list(tables_of(cut, QUALITIES[quality](cut.clip))) for cut in cuts]
        ways = Learned(tables)
        for (kind, clip), cut, own in zip(clips, cuts, tables, strict=True):
            planner, decided = ways.planner(cut, own), ways.decision(cut, own)
            for share in shares:
                tried = {"fixed": even(cut, share), "decision": decided, "planner": planner.near(share)}
                tried["split"] = halved_gaps(cut, own, share).near(share)
                tried |= oracles(cut, share)
                for keys, schedules in tried.items():
                    points = around(cut, schedules, share)
                    yield {
                        "kind": kind, "clip": clip.name, "grid": grid, "overlap": regions.overlap,
                        "keys": keys, "share": share, "miou": at_share(points, share), "points": points,
                    }  # fmt: skip


def oracles(cut: Cut, share: float) -> dict[str, Schedules]:
    """The best keys in each quality; of the mean IoU of regions each counts by its pixels."""
    found = {}
    for name, weights in QUALITIES.items():
        own = weights(cut.clip)
        inner = [float(cut.clip.labels[0][crop.inner_where].size) for crop in cut.crops]
        worth = inner if own is None else None
        found[f"best {name}"] = best(cut, list(tables_of(cut, own)), share, worth)
    return found


PLAIN = ("fixed", "planner", "decision", "split")
"""Ways of whole frames that no truth is needed for."""


def gains(rows: Sequence[Row]) -> Iterator[str]:
    """Each way against the best of `PLAIN`, clip by clip; kinds count alike in `all`."""
    worth = {(row["clip"], row["grid"], row["keys"], row["share"]): row["miou"] for row in rows}
    kinds: dict[str, list[str]] = {}
    for row in rows:
        names = kinds.setdefault(row["kind"], [])
        names += [row["clip"]] if row["clip"] not in names else []
    for share in sorted({row["share"] for row in rows}):

        def values(grid: str, keys: str, share: float = share) -> list[np.ndarray]:
            return [np.array([100 * worth[c, grid, keys, share] for c in clips]) for clips in kinds.values()]

        levels = {keys: np.mean([value_C.mean() for value_C in values("1x1", keys)]) for keys in PLAIN}
        rival = max(PLAIN, key=lambda keys: np.nan_to_num(levels[keys], nan=-np.inf))
        base = values("1x1", rival)
        for grid, keys in dict.fromkeys((row["grid"], row["keys"]) for row in rows):
            found = [value_C - base_C for value_C, base_C in zip(values(grid, keys), base, strict=True)]
            by_kind = "  ".join(f"{k} {_said([g])}" for k, g in zip(kinds, found, strict=True))
            level = np.mean([value_C.mean() for value_C in values(grid, keys)])
            against = f"against 1x1 {rival}: all {_said(found)}  {by_kind}"
            yield f"share {share:g}  {grid} {keys:13} {level:5.1f}  {against}"
            for rule, least in RULES.items() if grid != "1x1" and keys in PLAIN else ():
                taken = [where_it_wins(gain_C, least) for gain_C in found]
                by_kind = "  ".join(f"{k} {_said([g])}" for k, g in zip(kinds, taken, strict=True))
                where = f"where others win {rule}: all {_said(taken)}  {by_kind}"
                yield f"share {share:g}  {grid} {keys:13} {where}"


RULES: Mapping[str, Callable[[np.ndarray], float]] = {
    "by more than noise": least_gain,  # as the dial takes a grid
    "on average": lambda gain_C: float(gain_C.mean()) if len(gain_C) else 0.0,
}


def where_it_wins(gain_C: np.ndarray, least: Callable[[np.ndarray], float] = least_gain) -> np.ndarray:
    """What is gained if a clip has the grid only where `least` of the gains of its kind's other clips is
    above 0, and is whole frames else."""
    others = [np.delete(gain_C, place) for place in range(len(gain_C))]
    return np.array([gain if least(rest) > 0 else 0.0 for gain, rest in zip(gain_C, others, strict=True)])


def _said(gains_of: Sequence[np.ndarray]) -> str:
    """The mean over kinds of means over clips, and its interval from clips drawn again within kinds."""
    rng, drawn = np.random.default_rng(0), np.zeros(DRAWS)
    for gain_C in gains_of:
        drawn += gain_C[rng.integers(0, len(gain_C), (DRAWS, len(gain_C)))].mean(axis=1) / len(gains_of)
    low, high = np.quantile(drawn, [0.025, 0.975])
    mean = float(np.mean([gain_C.mean() for gain_C in gains_of]))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
