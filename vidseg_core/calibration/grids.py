"""Regions beside whole frames: the same work of N, spent on parts of frames.

Model: schedulers are tried on tables of regions as on those of frames, one setting for all regions of all
clips. What a key of a region counts is what N takes on its crop, in frames (`crop_cost`): so its pixels with
the overlap, and what a call costs besides. A grid that the run names spends a `budget` as a run counts it, in
pixels. What is promised is said in pixels, whatever it was chosen by. Frames are put together from inner
parts and compared with N on whole frames, so what crops lose at their borders is in the quality.

A grid beside whole frames gets the share of keys with which a frame costs no more than it does there, flow
on crops counted, and never more than the budget. It is taken where it wins by more than noise: for `budget`
where its gain, clip by clip, is more than the differences between clips explain (as for propagators, `ways`);
for `max_drop` where it keeps the promise and saves `LEAST_SAVED` more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidseg_core.calibration.choice import Choice, Valued, interval_of_mean
from vidseg_core.calibration.schedulers import (
    FixedFamily,
    LookaheadRuns,
    Point,
    families,
    long_run_share,
    prices_of,
)
from vidseg_core.calibration.search import search
from vidseg_core.calibration.tasks import LookedByRegion, SampleTasks, Way, file_for, longest_interval
from vidseg_core.calibration.ways import Prices, Reads, least_gain, read_by, refused, scheduler_with
from vidseg_core.config.catalogue import EVERY, FIXED, SCHEDULERS
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.scheduling.split import furthest_for

LEAST_SAVED = 0.05
"""Of the cost of a frame."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pricing:
    """What a frame costs whose regions have keys of their own."""

    prices: Prices
    carrier: PropagationConfig
    crops: float
    """N on all crops of a frame, in frames."""
    pixels: float
    """Of all crops, in frames."""

    def of(self, share: float, *, reads: Reads) -> float:
        """Operations of a frame on average, at this share of keys in frames."""
        between = self.pixels * self.prices.frame(self.carrier, reads=reads)
        return share * self.prices.net + (1 - min(1.0, share / self.crops)) * between

    def affordable(self, cost: float, *, reads: Reads) -> float:
        """The share of keys with which a frame costs so much on average; below 0: none."""
        between = self.pixels * self.prices.frame(self.carrier, reads=reads)
        each = self.prices.net - between / self.crops
        return (cost - between) / each if each > 0 else -1.0


class GridTrial:
    """One grid on the sample, under one propagator."""

    def __init__(
        self,
        config: SegmentConfig,
        way: Way,
        sample: SampleTasks,
        places: Sequence[int],
        names: Sequence[str],
        problem: str = "",
    ) -> None:
        """Looks at all runs at these places of the sample. `names`: the schedulers to try. `problem`: why
        nothing can be tried, where that is known; empty afterwards: it can."""
        self._config, self.way, self._sample, self._places = config, way, sample, places
        self._names, self.problem = names, problem
        if problem:
            return
        looked: list[LookedByRegion] = list(sample.look_by_region(places, way.regions))
        self.problem = next((each.problem for each in looked if each.problem), "")
        if self.problem:
            return
        self._tables = [table for each in looked for table in each.tables]
        # times, so a median: one clip on which the machine was busy would carry a mean
        self.parts: tuple[float, ...] = tuple(np.median([each.costs for each in looked], axis=0).tolist())
        self._pixels: tuple[float, ...] = tuple(
            np.mean([way.regions.shares(each.size) for each in looked], axis=0).tolist()
        )
        self.pixels = sum(self._pixels)
        self._valued: dict[str, Point] = {}

    def search(self, budget: float | None, frames: Sequence[int], net_s: float) -> Choice:
        """The best setting of the best scheduler within `budget`, or None for the run's `max_drop`."""
        config, longest = self._config, longest_interval(self._config)
        by_pixels = budget is not None and self.way.regions == config.regions
        parts = self._pixels if by_pixels else self.parts
        every = None if budget is None else budget / sum(parts)  # of frames of which all regions are key
        found = families(
            self._tables,
            self._names,
            max_interval=longest,
            policy=config.scheduler.policy,
            ahead=lookahead_runs(config, self._tables, self._sample, self._names, share=every),
            parts=parts,
        )
        choice = search(
            found,
            self.value,
            budget=budget,
            max_drop=config.max_drop if budget is None else None,
            frames=frames,
            seed=config.seed,
            net_s=net_s,
            even=FixedFamily(self._tables, longest, parts),
        )
        return replace(self._in_pixels(choice), max_interval=longest)

    def _in_pixels(self, choice: Choice) -> Choice:
        """The choice with all shares in pixels, and what its keys take of N as well."""
        choice = replace(choice, tried=tuple(self._row_in_pixels(row) for row in choice.tried))
        if choice.settings["name"] == EVERY:
            return choice
        even = None if choice.even is None else self._row_in_pixels(choice.even)
        return replace(
            choice,
            key_share=self._share(choice.settings, self._pixels),
            net_share=self._share(choice.settings, self.parts),
            even=even,
        )

    def _row_in_pixels(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, "key_share": self._share(row, self._pixels)}

    def _share(self, settings: Mapping[str, Any], parts: tuple[float, ...]) -> float:
        """Of a setting that was valued, if a key of each region counts so much."""
        point = self._valued[_named(settings)]
        if point.family == FIXED:
            return sum(parts) / point.settings["interval"]
        return long_run_share(point.keys, [table.frames for table in self._tables], parts)

    @property
    def reads(self) -> Reads:
        """What one of the schedulers, at least, reads of every frame."""
        each = [read_by(self._config, _bare(name, self._config)) for name in self._names]
        return Reads(flow=any(one.flow for one in each), low=any(one.low for one in each))

    def value(self, points: Sequence[Point]) -> list[Valued]:
        """Frames put together, against N on whole frames."""
        wanted = [
            (place, [point.of_clip(clip) for point in points]) for clip, place in enumerate(self._places)
        ]
        self._valued |= {_named(point.settings): point for point in points}
        found = self._sample.value_by_region(self.way, wanted)
        return [
            Valued(point=point, quality_C=np.array([clip[number] for clip in found]))
            for number, point in enumerate(points)
        ]


Look = Callable[[Way], GridTrial]
"""Looks at the sample with a grid, under a propagator."""


def choose_grid(
    config: SegmentConfig, first: Choice, prices: Prices, look: Look, frames: Sequence[int], say: Say
) -> Choice:
    """The choice with the grid that is best at equal cost, or whole frames (`first`), and the evidence."""
    if not config.calibration.grids:
        return first
    carrier = replace(config.propagation, **first.propagation)
    share = first.key_share if config.budget is None else config.budget
    cost = prices.of(share, carrier, reads=read_by(config, first.settings))
    rows, best, most = [_row("1x1", first, 1.0, None)], first, 0.0
    for regions in config.regions_tried:
        trial = look(Way(regions, carrier))
        if trial.problem:
            say(f"regions {regions.grid} are not tried: {trial.problem}")
            continue
        pricing = Pricing(prices, carrier, sum(trial.parts), trial.pixels)
        limit = min(
            pricing.affordable(cost, reads=trial.reads) if prices.net else share, config.budget or 1.0
        )
        if limit < pricing.crops / longest_interval(config):
            why = f"all crops of a frame cost {pricing.crops:.2f} frames, which leaves no keys for what"
            say(f"regions {regions.grid} are not tried: {why} whole frames cost")
            continue
        found = trial.search(None if config.budget is None else limit, frames, first.net_s)
        gains_C = np.array(found.by_clip) - np.array(first.by_clip)
        rows.append(_row(regions.grid, found, pricing.crops, interval_of_mean(gains_C, config.seed)))
        if config.budget is not None:
            wins = 0.0 if found.note else least_gain(gains_C)  # a note: no schedule has so few keys
        else:
            wins = _saved(config, found, pricing, cost if prices.net else share) - LEAST_SAVED
        if wins > most:
            most, best = wins, _with_grid(first, found, regions)
    return replace(best, grids=tuple(rows))


def _saved(config: SegmentConfig, found: Choice, pricing: Pricing, cost: float) -> float:
    """The part of what a frame costs that a grid saves; keys are counted where N's operations are not."""
    if found.settings["name"] == EVERY or found.note:
        return 0.0
    if not pricing.prices.net:
        return 1 - found.cost_share / cost
    return 1 - pricing.of(found.cost_share, reads=read_by(config, found.settings)) / cost


def _with_grid(first: Choice, found: Choice, regions: RegionsConfig) -> Choice:
    own = {"grid": regions.grid, "overlap": regions.overlap}
    return replace(found, asked=first.asked, propagation=first.propagation, ways=first.ways, regions=own)


def _named(settings: Mapping[str, Any]) -> str:
    """A scheduler at one setting, among whatever else is said of it."""
    own = ("name", "policy", "interval", "threshold")
    return repr([settings.get(name) for name in own])


def _row(grid: str, choice: Choice, crops: float, gain: tuple[float, float] | None) -> dict[str, Any]:
    return {
        "grid": grid,
        **choice.settings,
        "key_share": choice.key_share,
        "fidelity": choice.fidelity,
        "worst_drop": choice.worst_drop,
        "crops": round(crops, 2),
        "difference": gain,
    }


def names_for(names: Sequence[str], config: SegmentConfig, way: Way, say: Say) -> tuple[str, ...]:
    """The schedulers with which a run would begin: none that has learned from another grid, and none with
    which a segment would keep more than it may."""
    found = []
    for name in names:
        settings = _bare(name, config) | {"max_interval": longest_interval(config)}
        problem = refused(config, way.propagation, scheduler_with(config, settings), way.regions)
        if problem:
            where = f" with regions {way.regions.grid}" if way.regions.on else ""
            say(f"{name} is not tried{where}: {problem}")
        else:
            found.append(name)
    return tuple(found)


def lookahead_runs(
    config: SegmentConfig,
    tables: Sequence[EpisodeTable],
    sample: SampleTasks,
    names: Sequence[str],
    *,
    share: float | None,
) -> dict[str, LookaheadRuns]:
    """Those of the schedulers that look ahead, at each of their prices, on each clip. `share`: keys per frame
    (of a grid, of each region) that there may be; None: any."""
    found = {}
    for name in (name for name in names if SCHEDULERS[name].looks_ahead):
        about, most = _bare(name, config), longest_interval(config)
        if SCHEDULERS[name].asks and share is not None:
            about["max_interval"] = min(most, furthest_for(share))
        prices = prices_of(about.get("policy"), config.propagation.sides == "two")
        asked = SchedulerConfig(**{"max_interval": most, **about})
        found[name] = LookaheadRuns(about, prices, sample.look_ahead(tables, asked, prices))
    return found


def _bare(name: str, config: SegmentConfig) -> dict[str, Any]:
    """The settings of a scheduler before it has a threshold."""
    file = file_for(name, config)
    return {"name": name} | ({"policy": file} if file else {})
