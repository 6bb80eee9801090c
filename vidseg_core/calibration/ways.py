"""Which propagator goes with the scheduler: more keys with a cheap one, or fewer with a better one.

Model: the schedulers are tried under the run's own propagator (`search`). Then each other propagator gets a
share of keys with which it costs no more than that: N on the keys and flow and propagator on the other frames
count together (`Prices`), in operations, so that every machine chooses alike. With what is affordable the
chosen scheduler and even keys are valued on the same sample, and the best is taken: for ``--budget`` the
highest fidelity, never with more keys than the budget, if the gain over the run's own propagator is more
than the differences between clips explain; for ``--max_drop`` the least cost that keeps the promise.

A propagator is left out, and that is said, where a segment would keep more than ``--state_mb``, where nothing
would be left for keys, and where trying it would take longer than N took on the sample, unless the user names
it.

Legend: C clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from vidseg_core.calibration.choice import (
    Choice,
    Tables,
    Valued,
    choose_by_drop,
    conclude,
    fits,
    note_of,
)
from vidseg_core.calibration.schedulers import SHARES, Family, FixedFamily, Point, interval_within
from vidseg_core.config.catalogue import FIXED, FLOW_WARP, TRIED_PROPAGATORS, propagator_entry
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.propagation import PropagationConfig
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.segment import SchedulerConfig, SegmentConfig
from vidseg_core.engine.assemble import check_parts
from vidseg_core.scheduling import scheduler_of

FLOW_OPS = 2e8
"""What a DIS flow at 256 px with its warp takes (4 ms of a core), in operations of a net meanwhile."""
_T95 = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81, 1.80, 1.78, 1.77, 1.76, 1.75)
"""95 % quantiles of Student's t with 1, 2, ... degrees of freedom; with more the last is a little strict."""
_POINTS = {"budget": 2, "max_drop": 8}
"""Settings of a propagator that are valued, at most."""

ValueWay = Callable[[PropagationConfig, Sequence[Point]], list[Valued]]
"""Values points on all clips with another propagator."""


@dataclass(frozen=True, slots=True)
class Reads:
    """What a scheduler reads of every frame, whatever fills the gaps."""

    flow: bool = False
    """The flow to the last key."""
    low: bool = False
    """What N's first layers make of the frame."""


NOTHING = Reads()


@dataclass(frozen=True, slots=True)
class Prices:
    """Operations of a frame."""

    net: float
    """As a key; 0: not known, and then propagators are compared at equal shares of keys."""
    flow: float = 0.0
    """Of a flow net between two pictures; 0: it is none."""
    own: float = 0.0
    """Of a frame under the run's own propagator beside flow and low-level features, as counted, where the
    catalogue says nothing."""
    low: float = 0.0
    """Of N's low-level features of a frame; 0: nobody reads them."""
    fills_low: bool = False
    """The run's own propagator reads them, whatever the scheduler does."""
    expects: float = 0.0
    """Of what a scheduler that reads them makes of a pair."""

    def frame(self, carrier: PropagationConfig, *, reads: Reads = NOTHING) -> float:
        """Between keys: flow on both sides, what the propagator does besides, what the scheduler reads."""
        entry, scale = propagator_entry(carrier.name), (carrier.flow_size / 256) ** 2
        flows = (2 if carrier.sides == "two" else 1) if entry is None or entry.moves else int(reads.flow)
        known = entry.dial_ops if entry is not None else None
        own = self.own if known is None else known * scale
        own += self.low if reads.low or (known is None and self.fills_low) else 0.0
        own += self.expects if reads.low else 0.0
        return flows * max(self.flow, FLOW_OPS * scale) + own

    def of(self, share: float, carrier: PropagationConfig, *, reads: Reads = NOTHING) -> float:
        """A frame on average at this share of keys."""
        return share * self.net + (1 - share) * self.frame(carrier, reads=reads)

    def affordable(self, cost: float, carrier: PropagationConfig, *, reads: Reads = NOTHING) -> float:
        """The share of keys with which a frame costs so much on average; below 0: none."""
        if not self.net:
            return 1.0
        between = self.frame(carrier, reads=reads)
        if self.net <= between:
            return 1.0 if between <= cost else -1.0
        return min(1.0, (cost - between) / (self.net - between))


def other_ways(config: SegmentConfig) -> list[PropagationConfig]:
    """The propagators that may take the place of the run's own. `ConfigError` for one that was named and does
    not go with the other options."""
    named = config.calibration.propagators
    own, found = config.propagation, []
    usual = own.name == FLOW_WARP and own.latency == "full"
    for name in named or (TRIED_PROPAGATORS if usual else ()):
        if name == own.name:
            continue
        try:
            way = replace(own, name=name)
        except ConfigError as problem:
            if named:
                raise ConfigError("--calibration.propagators", f"{name}: {problem}") from problem
            continue
        found.append(replace(way, self_check=False) if way.checks_itself else way)
    return found


def affordable_ways(
    config: SegmentConfig,
    prices: Prices,
    cost: float,
    say: Callable[[str], None],
    scheduler: SchedulerConfig | None = None,
) -> list[PropagationConfig]:
    """Those of the others that are worth trying at this cost of a frame; why not is said. `scheduler`: that
    they would go with, if it is not the run's own."""
    found = []
    points = _points(config)
    for way in other_ways(config):
        named = way.name in config.calibration.propagators
        between = prices.frame(way)
        if prices.net and prices.affordable(cost, way) < 1 / config.scheduler.max_interval:
            say(f"{way.name} is not tried: for what {config.propagation.name} costs it would leave no keys")
        elif points * between > prices.net and between and not named:
            why = f"it would take longer than the net on the sample ({prices.net / 1e9:.2g} GFLOP a frame)"
            why = why if prices.net else "what the net costs is not known (torch counts no operations)"
            say(f"{way.name} is not tried: {why}; --calibration.propagators {way.name} tries it all the same")
        elif problem := refused(config, way, scheduler or config.scheduler):
            say(f"{way.name} is not tried: {problem}")
        else:
            found.append(way)
    return found


def refused(
    config: SegmentConfig,
    way: PropagationConfig,
    scheduler: SchedulerConfig,
    regions: RegionsConfig | None = None,
) -> str:
    """Why a run would not begin with these; empty: it would. `regions`: if they are not the run's own."""
    try:
        check_parts(
            config.without_dial(propagation=way, scheduler=scheduler, regions=regions or config.regions)
        )
    except ConfigError as problem:
        return str(problem)
    return ""


def trial_ops(config: SegmentConfig, net: float, flow: float = 0.0) -> float:
    """What trying the others may take, a frame of the sample."""
    prices = Prices(net, flow)
    cost = prices.of(config.budget if config.budget is not None else 1.0, config.propagation)
    points = _points(config)
    return sum(points * prices.frame(way) for way in affordable_ways(config, prices, cost, lambda text: None))


def _points(config: SegmentConfig) -> int:
    return _POINTS["budget" if config.budget is not None else "max_drop"]


def choose_way(
    config: SegmentConfig,
    choice: Choice,
    prices: Prices,
    found: Sequence[Family],
    even: FixedFamily,
    value: ValueWay,
    frames: Sequence[int],
    say: Callable[[str], None],
) -> Choice:
    """The choice with the propagator that is best at equal cost, and the evidence; `found`: the schedulers
    that were tried, `even`: even keys, which are left out where other schedulers were named."""
    share = config.budget if config.budget is not None else choice.key_share
    reads = read_by(config, choice.settings)
    cost = prices.of(share, config.propagation, reads=reads)
    longest = choice.max_interval or config.scheduler.max_interval
    scheduler = replace(scheduler_with(config, choice.settings), max_interval=longest)
    ways = affordable_ways(config, prices, cost, say, scheduler)
    rows = [_row(config.propagation, choice.key_share, choice.fidelity, choice.worst_drop, prices, reads)]
    best, paid = choice, cost if prices.net else choice.key_share
    families: list[Family] = [each for each in found if each.name == choice.settings["name"] != FIXED]
    for way in ways:
        afford = partial(prices.affordable, cost, way) if prices.net else (lambda reads: share)
        limits = [(family, min(afford(reads=reads), config.budget or 1.0)) for family in families]
        if FIXED in (config.calibration.schedulers or (FIXED,)):
            limits.append((even, min(afford(reads=NOTHING), config.budget or 1.0)))
        if config.budget is not None:
            points, kept = _within(config, limits, frames), None
            item = max(value(way, points), key=_worth) if points else None
        else:
            assert config.max_drop is not None
            tables = _tables(value, way, limits)
            item, kept, _ = choose_by_drop(tables, config.max_drop) if tables else (None, None, 0.0)
        if item is None:
            rows.append(_row(way, None, None, None, prices, NOTHING))
            continue
        mean, worst = 100 * float(item.quality_C.mean()), float(item.drop_C.max())
        own = read_by(config, item.point.settings)
        rows.append(_row(way, item.point.share, mean, worst, prices, own))
        costs = prices.of(item.point.share, way, reads=own) if prices.net else item.point.share
        if config.budget is None:
            better = costs < paid
        elif better := mean > (best.fidelity or 0.0):
            better = least_gain(100 * item.quality_C - choice.by_clip) > 0.0
            if not better:
                gain, clips = mean - (choice.fidelity or 0.0), len(item.quality_C)
                say(
                    f"{way.name} is {gain:.2f} points better, which may be chance on {clips} clips: not taken"
                )
        if better:
            best, paid = _with_way(choice, way, item, kept, config, frames), costs
    return replace(best, ways=tuple(rows) if ways else ())


def read_by(config: SegmentConfig, settings: Mapping[str, Any]) -> Reads:
    """What the scheduler with these settings reads of every frame."""
    scheduler = scheduler_of(scheduler_with(config, settings))
    flow, low = (bool(getattr(scheduler, name, False)) for name in ("needs_flow", "needs_low"))
    return Reads(flow=flow, low=low)


def scheduler_with(config: SegmentConfig, settings: Mapping[str, Any]) -> SchedulerConfig:
    """The scheduler of a run with these settings."""
    return SchedulerConfig(**{"max_interval": config.scheduler.max_interval, **settings})


def least_gain(gains_C: np.ndarray) -> float:
    """What the mean gain on clips like these is above, 19 times in 20 (Student's t); of one clip nothing."""
    if len(gains_C) < 2:
        return float("-inf")
    error = gains_C.std(ddof=1) / np.sqrt(len(gains_C))
    return float(gains_C.mean() - _T95[min(len(gains_C) - 1, len(_T95)) - 1] * error)


def _worth(item: Valued) -> tuple[float, float]:
    """By which points are compared: mean quality, and then fewer keys."""
    return float(item.quality_C.mean()), -item.point.share


def _within(
    config: SegmentConfig, limits: Sequence[tuple[Family, float]], frames: Sequence[int]
) -> list[Point]:
    """A point of each family that keeps to its share of keys, where there is one."""
    points: list[Point] = []
    for family, most in limits:
        if isinstance(family, FixedFamily):
            interval = interval_within(most) if most > 0 else family.longest + 1
            points += [family.at(interval)] if interval <= family.longest else []
            continue
        shares = [most, 0.93 * most, 0.85 * most] if most > 0 else []
        within = [point for point in family.points(shares) if point.share <= most]
        points += [point for point in within if fits(point, most, frames, config.seed)][:1]
    return points


def _tables(value: ValueWay, way: PropagationConfig, limits: Sequence[tuple[Family, float]]) -> Tables:
    """Points of each family from the share that is affordable down."""
    points: dict[tuple[str, float], Point] = {}
    for family, most in limits:
        shares = [share for share in (most, *SHARES) if 0 < share <= most][:4]
        for point in family.points(shares):
            if point.share <= most * (1 + 1e-9):
                points[point.family, point.share] = point
    tables: dict[str, list[Valued]] = {}
    for item in value(way, list(points.values())) if points else []:
        tables.setdefault(item.point.family, []).append(item)
    return tables


def _with_way(
    first: Choice,
    way: PropagationConfig,
    item: Valued,
    kept: int | None,
    config: SegmentConfig,
    frames: Sequence[int],
) -> Choice:
    """The choice of this point under this propagator, with what was known of the first."""
    made = conclude(
        item,
        asked=first.asked,
        frames=frames,
        seed=config.seed,
        note=first.note if config.budget is not None else note_of(item, len(frames)),
        held_out_kept=kept,
        net_s=first.net_s,
        tried=first.tried,
        even=first.even,
    )
    own = {"name": way.name} | (
        {"self_check": False} if way.self_check != config.propagation.self_check else {}
    )
    return replace(made, max_interval=first.max_interval, propagation=own)


def _row(
    way: PropagationConfig,
    share: float | None,
    fidelity: float | None,
    worst: float | None,
    prices: Prices,
    reads: Reads,
) -> Mapping[str, Any]:
    """What is known of a propagator at its best setting; None: it keeps no promise."""
    between = prices.frame(way, reads=reads)
    frame = between if share is None else prices.of(share, way, reads=reads)
    return {
        "propagator": way.name,
        "key_share": share,
        "fidelity": fidelity,
        "worst_drop": worst,
        "frame_gflop": round(frame / 1e9, 4),
    }


def way_values(qualities: Sequence[Sequence[float]], points: Sequence[Point]) -> list[Valued]:
    """`qualities`: per clip, of each point."""
    return [
        Valued(point=point, quality_C=np.array([clip[number] for clip in qualities]))
        for number, point in enumerate(points)
    ]
