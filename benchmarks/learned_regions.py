"""The part `learned` of `benchmarks.regions`: schedulers that learned on tables of regions, on other clips.

Of each clip and grid, tables as `build-episodes --regions.grid` makes them (labels as N, keys every third
frame, two sides). In turn a third of the clips is left out; the others teach a decision net
(`train-decision`) and a planner (`train-planner`) of the grid, one file for all of its regions. On the clips
left out their thresholds are set so that the key share is the asked one, and frames are filled from two sides
as the run does. Beside them `fixed`, the planner of the package (which knows some of the clips), and the best
keys under one budget of pixels by the tables, as `evaluate` has them (`oracle`). The score is that of the
other parts.

Of the differences between two ways the mean over clips and its 95 % interval (bootstrap over clips) are said.

Legend: T frames of a clip, P thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.regions import (
    ORACLE_SIZE,
    STRIDE,
    Point,
    Row,
    at_share,
    confusion_of,
    score,
    sized,
)
from benchmarks.two_sided import Clip
from vidseg_core.calibration.choice import interval_of_mean
from vidseg_core.calibration.evidence import schedule_masks
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.records import Record
from vidseg_core.datasets.regions import cut_out, region_name
from vidseg_core.episodes.between import Seen
from vidseg_core.episodes.features import Features
from vidseg_core.episodes.on_tables import LookaheadTable, Scored
from vidseg_core.episodes.oracle import divide, two_sided_curve
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_builder import TableBuilder, TableOptions
from vidseg_core.episodes.table_set import join_tables
from vidseg_core.models.planner import PlannerFacts, PlannerModel, read_planner
from vidseg_core.propagation import DisFlow, build_propagator
from vidseg_core.scheduling.lookahead_features import LOOKAHEAD_FEATURES, Pairs
from vidseg_core.scheduling.planner import PlannerCore
from vidseg_core.training.decision_loop import DecisionOptions, train_decision
from vidseg_core.training.planner_fit import cross_fit, lesson_of

GRIDS = (("1x1", 0), ("2x2", 8), ("3x3", 8))
FOLDS, HORIZON = 3, 90
THRESHOLDS = 160
INTERVALS = (10.0, 25.0)


@dataclass(slots=True)
class Part:
    """One region of a clip."""

    pixels: int
    inner: int
    """Of its inner part."""
    seen: Seen
    table: EpisodeTable


@dataclass(slots=True)
class Cut:
    """One clip, cut by one grid."""

    clip: Clip
    regions: RegionsConfig
    builder: TableBuilder
    parts: list[Part]

    @property
    def frame_pixels(self) -> int:
        return int(self.clip.labels[0].size)

    def share(self, keys: Sequence[np.ndarray]) -> float:
        seen = sum(len(keys_m) * part.pixels for keys_m, part in zip(keys, self.parts, strict=True))
        return seen / (self.frame_pixels * len(self.clip.frames))

    def worth(self, keys: Sequence[np.ndarray]) -> float:
        """Of all frames, filled from two sides and put together."""
        total, size = 0, self.clip.classes + 1
        crops = self.regions.crops(self.clip.labels[0].shape)
        for crop, part, keys_m in zip(crops, self.parts, keys, strict=True):
            masks = schedule_masks(self.builder, part.seen, keys_m, two_sided=True)
            for mask_hw, labels_HW in zip(masks, self.clip.labels, strict=True):
                total = total + confusion_of(mask_hw[crop.inner_in_crop], labels_HW[crop.inner_where], size)
        return score(np.asarray(total))


def cut_of(clip: Clip, regions: RegionsConfig) -> Cut:
    """The tables of the clip's regions, in this process."""
    options = TableOptions(
        horizon=min(HORIZON, len(clip.frames) - 1),
        key_stride=STRIDE,
        two_sided_stride=STRIDE,
        flow_size=ORACLE_SIZE,
        pictures=True,
        any_class=True,
    )
    builder = TableBuilder(
        options,
        net=None,
        propagator=build_propagator("flow_warp"),
        flow=DisFlow(),
        features=Features(("flow",)),
        classes=clip.classes,
    )
    about = {"key_stride": str(STRIDE), "two_sided_stride": str(STRIDE), **regions.recorded()}
    records = [
        Record(video_id=clip.name, frame_index=t, frame_HW3=frame_HW3, labels_HW=labels_HW)
        for t, (frame_HW3, labels_HW) in enumerate(zip(clip.frames, clip.labels, strict=True))
    ]
    parts = []
    for number, crop in enumerate(regions.crops(clip.labels[0].shape)):
        name = region_name(clip.name, regions, number) if regions.on else clip.name
        seen = builder.see(cut_out(record, regions, number, name) for record in records)
        inner = clip.labels[0][crop.inner_where].size
        parts.append(Part(crop.pixels, inner, seen, builder.tabulate(name, 0, seen, fingerprint=about)))
    return Cut(clip, regions, builder, parts)


# --- who chooses keys --------------------------------------------------------------------------------------


def around(cut: Cut, schedules: Sequence[Sequence[np.ndarray]], share: float) -> list[Point]:
    """What the two schedules next to the share are worth."""
    shares = [cut.share(keys) for keys in schedules]
    below = [place for place, found in enumerate(shares) if found <= share]
    above = [place for place, found in enumerate(shares) if found > share]
    chosen = [max(below, key=lambda place: shares[place])] if below else []
    chosen += [min(above, key=lambda place: shares[place])] if above else []
    return [(shares[place], cut.worth(schedules[place])) for place in chosen]


def fixed(cut: Cut, share: float) -> list[list[np.ndarray]]:
    factor = sum(part.pixels for part in cut.parts) / cut.frame_pixels
    around_it = {max(1, math.floor(factor / share)), math.ceil(factor / share)}
    return [[np.arange(0, len(cut.clip.frames), each) for _ in cut.parts] for each in sorted(around_it)]


def planned(cut: Cut, model: PlannerModel, facts: PlannerFacts, share: float) -> list[list[np.ndarray]]:
    """At prices around the share, by halving."""
    core = PlannerCore(model, facts, pairs=Pairs(most=2000))
    walked = [LookaheadTable(core, part.table, two_sided=True) for part in cut.parts]
    tried, low, high = list[list[np.ndarray]](), 1e-6, 20.0
    for _ in range(16):
        price = math.sqrt(low * high)
        tried.append([walk.keys(price) for walk in walked])
        low, high = (low, price) if cut.share(tried[-1]) <= share else (price, high)
    return tried


def best(cut: Cut, share: float) -> list[list[np.ndarray]]:
    """The best keys of all regions under one budget of pixels, and with one key more."""
    curves = [two_sided_curve(part.table) for part in cut.parts]
    costs, worth = [part.pixels for part in cut.parts], [part.inner for part in cut.parts]
    budget = share * cut.frame_pixels * len(cut.clip.frames)
    least = sum(cost * curve.least for cost, curve in zip(costs, curves, strict=True))
    found = []
    for most in (budget, budget + max(costs)):
        keys = divide(curves, max(most, least), costs=costs, worth=worth).keys
        found.append([curve.schedule(m) for curve, m in zip(curves, keys, strict=True)])
    return found


class Learned:
    """What learned of one grid on the clips outside of each fold."""

    def __init__(self, cuts: Sequence[Cut]) -> None:
        tables = [part.table for cut in cuts for part in cut.parts]
        videos = sorted({table.video for table in tables})
        self.fold_of = {video: number % FOLDS for number, video in enumerate(videos)}
        reach = min(table.horizon for table in tables)
        lessons = [lesson_of(table, STRIDE, reach) for table in tables]
        found = cross_fit(lessons, folds=FOLDS, intervals=INTERVALS)
        self._planners = {
            self.fold_of[table.video]: model for table, model in zip(tables, found.fold_models, strict=True)
        }
        self._facts = PlannerFacts(
            feature_names=LOOKAHEAD_FEATURES,
            stride=STRIDE,
            window=min(180, 2 * reach),
            reach=reach,
            fingerprint={},
            tables="",
            strength=found.strength,
        )
        self._nets = {
            fold: train_decision(
                join_tables([table for table in tables if self.fold_of[table.video] != fold]),
                None,
                DecisionOptions(steps=1500),
            ).net
            for fold in range(FOLDS)
        }

    def planner(self, cut: Cut, share: float) -> list[list[np.ndarray]]:
        return planned(cut, self._planners[self.fold_of[cut.clip.name]], self._facts, share)

    def decision(self, cut: Cut, share: float) -> list[list[np.ndarray]]:
        """The net's keys among every third frame, by many thresholds."""
        net = self._nets[self.fold_of[cut.clip.name]]
        scores = [Scored(net.key_rate, join_tables([part.table])) for part in cut.parts]
        horizon = cut.parts[0].table.horizon
        met = np.concatenate([each.met(np.array([-np.inf, np.inf]), horizon) for each in scores])
        tried = np.quantile(met[np.isfinite(met)], np.linspace(0, 1, THRESHOLDS))
        runs = [each.keys(tried, horizon) for each in scores]
        return [[np.flatnonzero(run[place]) for run in runs] for place in range(THRESHOLDS)]


# --- what is run -------------------------------------------------------------------------------------------


def learned(kinds: dict[str, list[Clip]], most: int | None, shares: Sequence[float]) -> Iterator[Row]:
    """All clips at all grids; `kinds`: by kind of material."""
    clips = [(kind, sized(clip, ORACLE_SIZE, most)) for kind, found in kinds.items() for clip in found]
    for grid, overlap in GRIDS:
        regions = RegionsConfig(grid=grid, overlap=overlap)
        cuts = [cut_of(clip, regions) for _, clip in clips]
        ways = Learned(cuts)
        for (kind, clip), cut in zip(clips, cuts, strict=True):
            for share in shares:
                tried: dict[str, Any] = {
                    "fixed": around(cut, fixed(cut, share), share),
                    "decision": around(cut, ways.decision(cut, share), share),
                    "planner": around(cut, ways.planner(cut, share), share),
                    "oracle": around(cut, best(cut, share), share),
                }
                if grid == "1x1":
                    model, facts = read_planner("tiny-planner")
                    tried["package"] = around(cut, planned(cut, model, facts, share), share)
                for keys, points in tried.items():
                    yield {
                        "kind": kind, "clip": clip.name, "grid": grid, "overlap": overlap, "keys": keys,
                        "share": share, "miou": at_share(points, share), "points": points,
                    }  # fmt: skip


def gains(rows: Sequence[Row]) -> Iterator[str]:
    """Each way against the best whole-frame way that no truth is needed for, clip by clip."""
    worth = {(row["clip"], row["grid"], row["keys"], row["share"]): row["miou"] for row in rows}
    clips, shares = sorted({row["clip"] for row in rows}), sorted({row["share"] for row in rows})
    for share in shares:
        plain = ("fixed", "planner", "decision", "package")
        rival = max(plain, key=lambda keys: np.mean([worth[clip, "1x1", keys, share] for clip in clips]))
        base_C = np.array([worth[clip, "1x1", rival, share] for clip in clips])
        for grid, keys in dict.fromkeys((row["grid"], row["keys"]) for row in rows):
            gain_C = 100 * (np.array([worth[clip, grid, keys, share] for clip in clips]) - base_C)
            low, high = interval_of_mean(gain_C, 0)
            yield (
                f"share {share:g}  {grid} {keys:9} {100 * base_C.mean() + gain_C.mean():.1f}  against "
                f"1x1 {rival} {gain_C.mean():+.1f} ({low:+.1f} to {high:+.1f}) over {len(clips)} clips"
            )
