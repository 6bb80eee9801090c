"""The schedulers that a calibration tries, on tables: one number each, from careful to saving.

Model: a `Family` is a scheduler whose one setting (interval or threshold) is free. Over all clips of the
sample it offers `Point`s: settings in the order of the keys that they take. Invariant: a point's keys are
those that the engine would take on the clip with that setting (tests of `episodes.walk` and
`episodes.operate` hold tables and engine together).

How many keys a setting takes *in the long run* cannot be read off short clips by counting: each begins with
a forced key and ends in the middle of an interval. The mean interval is the area under the Kaplan-Meier
estimate of "no key yet" (an interval that the clip's end cuts short counts as one of at least that length);
a fixed interval comes out exact.

Legend: T frames, P settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vidseg_core.config.catalogue import EVERY, FIXED, SCHEDULERS
from vidseg_core.episodes.on_tables import keys_on, scored_on
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.walk import feature, fixed_keys
from vidseg_core.models.planner import read_planner

SHARES = (0.5, 0.33, 0.25, 0.18, 0.125, 0.083, 0.06, 0.04, 0.03, 0.02)
"""Key shares around which settings are looked at first."""
GRID = 240
"""Thresholds that are walked to find those shares; walking costs next to nothing."""
ALL_PRICES = (0.01, 60.0)
"""Mean IoU times frames."""
PRICES = 56
"""Prices of a key at which a planner is tried; windows are looked at once for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A scheduler at one setting, on every clip of the sample."""

    family: str
    settings: Mapping[str, Any]
    """Fields of `SchedulerConfig` that differ from its defaults."""
    keys: tuple[np.ndarray, ...]
    """Per clip, or region of a clip: its key frames, the first 0."""
    share: float
    """Keys per frame in the long run; with regions in frames' worth."""
    parts: tuple[float, ...] = (1.0,)
    """What a key of each region of a clip counts, the regions of a clip following each other in `keys`; whole
    frames have one."""

    def of_clip(self, clip: int) -> tuple[np.ndarray, ...]:
        """Its keys, of each region."""
        return self.keys[clip * len(self.parts) : (clip + 1) * len(self.parts)]


@dataclass(frozen=True, slots=True)
class LookaheadRuns:
    """A scheduler that looks ahead on the sample."""

    about: Mapping[str, Any]
    """Its name and file, as fields of `SchedulerConfig`."""
    prices: Sequence[float]
    runs: Sequence[np.ndarray]
    """Per clip bool [P, T]: its keys at each price."""


class Family(Protocol):
    """A scheduler on the sample."""

    name: str

    def points(self, shares: Sequence[float]) -> list[Point]:
        """The settings that come nearest to these key shares, falling, each once."""
        ...


class FixedFamily:
    """`fixed`: its share of keys is known without looking."""

    name = FIXED

    def __init__(
        self, tables: Sequence[EpisodeTable], max_interval: int, parts: tuple[float, ...] = (1.0,)
    ) -> None:
        self._tables, self.longest, self._parts = tables, max_interval, parts

    def points(self, shares: Sequence[float]) -> list[Point]:
        wanted = {min(self.longest, max(2, self.near(share))) for share in shares}
        return [self.at(interval) for interval in sorted(wanted)]

    def at(self, interval: int) -> Point:
        """Any interval."""
        keys = tuple(fixed_keys(table.frames, interval) for table in self._tables)
        settings = {"name": self.name, "interval": interval}
        share = sum(self._parts) / interval
        return Point(family=self.name, settings=settings, keys=keys, share=share, parts=self._parts)

    def near(self, share: float) -> int:
        """The interval whose keys are about this share."""
        return round(sum(self._parts) / share)

    def within(self, share: float) -> int:
        """The shortest interval whose keys are at most this share."""
        return interval_within(share / sum(self._parts))


class ScoredFamily:
    """A scheduler that takes a frame whose score exceeds a threshold."""

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        thresholds_P: np.ndarray,
        runs: Sequence[np.ndarray],
        parts: tuple[float, ...] = (1.0,),
    ) -> None:
        """`runs`: per clip bool [P, T]."""
        self.name, self._settings = name, settings
        keys = [[np.flatnonzero(is_key_T) for is_key_T in run] for run in runs]
        frames = [run.shape[1] for run in runs]
        self._points = [
            Point(
                family=name,
                settings={**settings, "threshold": float(threshold)},
                keys=tuple(clip[place] for clip in keys),
                share=long_run_share([clip[place] for clip in keys], frames, parts),
                parts=parts,
            )
            for place, threshold in enumerate(thresholds_P)
        ]
        self._points.sort(key=lambda point: -point.share)

    def points(self, shares: Sequence[float]) -> list[Point]:
        known_P = np.log([point.share for point in self._points])
        places = {int(np.argmin(np.abs(known_P - np.log(share)))) for share in shares}
        return [self._points[place] for place in sorted(places)]


def prices_of(policy: str | None, two_sided: bool) -> list[float]:
    """Prices from a third of a planner's lowest operating point to three times its highest; without a file,
    all that make sense: from some pixels of a frame to all of an interval."""
    if policy is None:
        return [float(f"{price:.4g}") for price in np.geomspace(*ALL_PRICES, PRICES)]
    _, facts = read_planner(policy)
    sides = "two" if two_sided else "one"
    known = [point.threshold for point in facts.operating_points if point.sides == sides] or [0.05, 5.0]
    low, high = max(min(known) / 3, 1e-4), max(max(known) * 3, 1e-3)
    return [float(f"{price:.4g}") for price in np.geomspace(low, high, PRICES)]


def keys_at(
    table: EpisodeTable, settings: Mapping[str, Any], max_interval: int, *, two_sided: bool = True
) -> np.ndarray:
    """The keys that a scheduler with these settings takes on a clip, one of the sample or not."""
    name = settings["name"]
    if name == EVERY:
        return np.arange(table.frames)
    if name == FIXED:
        return fixed_keys(table.frames, settings["interval"])
    found = keys_on(
        table,
        name,
        [settings["threshold"]],
        policy=settings.get("policy"),
        max_interval=settings.get("max_interval", max_interval),
        two_sided=two_sided,
    )
    return np.flatnonzero(found[0])


def interval_within(share: float) -> int:
    """The shortest even interval whose keys are at most this share."""
    return max(1, math.ceil(1 / share - 1e-9))


def long_run_share(
    keys: Sequence[np.ndarray], frames: Sequence[int], parts: tuple[float, ...] = (1.0,)
) -> float:
    """Keys per frame in the long run; see the module. `parts`: what a key of each region of a clip counts."""
    step = len(parts)
    return sum(part * _long_run(keys[at::step], frames[at::step]) for at, part in enumerate(parts))


def _long_run(keys: Sequence[np.ndarray], frames: Sequence[int]) -> float:
    ended = np.concatenate([np.diff(keys_m) for keys_m in keys])
    cut = np.array([count - int(keys_m[-1]) for keys_m, count in zip(keys, frames, strict=True)])
    longest = int(max(ended.max(initial=0), cut.max(initial=0)))
    ends_L = np.bincount(ended, minlength=longest + 1).astype(float)
    cut_L = np.bincount(cut, minlength=longest + 1).astype(float)
    asked_L = (ends_L + cut_L)[::-1].cumsum()[
        ::-1
    ] - cut_L  # whether a key came so late was not seen at the cut
    alive_L = np.cumprod(1 - np.divide(ends_L, asked_L, out=np.zeros_like(ends_L), where=asked_L > 0))
    return float(1 / max(1.0, alive_L[:longest].sum()))


def families(
    tables: Sequence[EpisodeTable],
    names: Sequence[str],
    *,
    max_interval: int,
    policy: str | None = None,
    ahead: Mapping[str, LookaheadRuns] | None = None,
    parts: tuple[float, ...] = (1.0,),
) -> list[Family]:
    """The schedulers of these names on the sample.

    `policy`: the file that a learned scheduler reads. `ahead`: what those that look ahead do on them.
    `parts`: of tables of regions, what a key of each region of a clip counts.
    """
    found: list[Family] = []
    for name in names:
        if name == FIXED:
            found.append(FixedFamily(tables, max_interval, parts))
        elif SCHEDULERS[name].feature:
            found.append(_heuristic(tables, name, policy, max_interval, parts))
        elif SCHEDULERS[name].looks_ahead:
            assert ahead is not None
            own = ahead[name]
            found.append(ScoredFamily(name, own.about, np.array(own.prices), own.runs, parts))
        else:
            assert policy is not None
            found.append(_trained(tables, name, policy, max_interval, parts))
    return found


def _heuristic(
    tables: Sequence[EpisodeTable],
    name: str,
    policy: str | None,
    max_interval: int,
    parts: tuple[float, ...],
) -> ScoredFamily:
    scores = [feature(table, SCHEDULERS[name].feature) for table in tables]
    thresholds_P = _grid(np.concatenate([score[:, 1 : max_interval + 1].ravel() for score in scores]))
    runs = [keys_on(table, name, thresholds_P, max_interval=max_interval) for table in tables]
    settings = {"name": name} | ({"policy": policy} if SCHEDULERS[name].trained_by else {})
    return ScoredFamily(name, settings, thresholds_P, runs, parts)


def _trained(
    tables: Sequence[EpisodeTable], name: str, policy: str, max_interval: int, parts: tuple[float, ...]
) -> ScoredFamily:
    walked = [scored_on(table, name, policy) for table in tables]
    seen = [each.met(np.array([-np.inf, np.inf]), max_interval) for each in walked]
    between_P = _grid(np.concatenate(seen))[::10]
    seen += [each.met(between_P, max_interval) for each in walked]
    thresholds_P = _grid(np.concatenate(seen))
    runs = [each.keys(thresholds_P, max_interval) for each in walked]
    return ScoredFamily(name, {"name": name, "policy": policy}, thresholds_P, runs, parts)


def _grid(seen: np.ndarray) -> np.ndarray:
    """Thresholds between the scores that were met, with three digits or more, at least 0."""
    known = seen[np.isfinite(seen)].astype(np.float64)
    places = np.quantile(known, np.linspace(0, 1, GRID))
    rounded = np.array([float(f"{place:.4g}") for place in np.append(places, known.max() * 1.01 + 1e-9)])
    return np.unique(np.maximum(rounded, 0.0))
