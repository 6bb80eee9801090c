"""Which scheduler, at which setting, keeps what was promised: judged on clips, so that it holds on others.

Model, for `max_drop` (fidelity points that a clip may lose against the net on every frame). Each
scheduler's settings are ordered from careful to saving. For each clip of the sample there is a last setting
up to which its drop stays within the limit; the setting taken is the one that all clips but the worst few
allow, where "few" is what split conformal prediction grants: of n clips the setting that rank ceil((n + 1)
0.9) allows is within the limit on a new clip of the same kind with a chance of 90 % or more (Vovk;
Angelopoulos and Bates, 2021, section 1). With n below 9 no rank grants that, and the choice says so. Taking
the best of several schedulers looks at the sample once more than the theorem allows. So choices are made by
nine tenths of the limit, and the whole choice is repeated with each clip left out; while it fails on more
than one in ten of these, the limit is drawn in further.

For `budget` (share of keys): of the settings whose share, 9 times in 10 when clips are drawn again, is within
the budget, the one with the best fidelity.

Legend: C clips, P points of one scheduler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vidseg_core.calibration.schedulers import Point, interval_within, long_run_share
from vidseg_core.config.catalogue import EVERY, FIXED
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine.trial import usual_pixels

CONFIDENCE = 0.9
LEAST_CLIPS = 9
"""ceil((n + 1) 0.9) <= n from here on."""
DRAWS = 2000
_START, _TIGHTER = 0.9, 0.85
"""The limit that choices are made by, relative to the one asked for, and how it is drawn in."""
_TRIES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Valued:
    """A point and what it is worth on each clip."""

    point: Point
    quality_C: np.ndarray
    """Mean quality against the net on every frame, 0 to 1."""

    @property
    def drop_C(self) -> np.ndarray:
        """Points lost, 0 to 100."""
        return 100 * (1 - self.quality_C)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen and what is promised; written to the run as JSON."""

    asked: Mapping[str, float]
    """`budget` or `max_drop`, as asked."""
    settings: Mapping[str, Any]
    """Fields of `SchedulerConfig` that differ from its defaults."""
    can_keep: bool
    """Whether the sample says that the promise holds with something saved."""
    note: str
    """What must be said besides; empty: nothing."""
    key_share: float
    """Expected keys per frame; with regions in frames' worth of pixels, as a run counts them."""
    fidelity: float | None
    """Expected, mean over clips, 0 to 100; None, as the next three: nothing was looked at."""
    fidelity_low: float | None
    fidelity_high: float | None
    """95 % interval of that mean, from clips drawn again."""
    worst_drop: float | None
    """Of the clips, points."""
    clips: int
    """Looked at; 0: nothing was, since that would have cost more than the job."""
    frames: int
    held_out_kept: int | None = None
    """max_drop: clips on which the choice that the others made keeps the promise."""
    net_s: float = 0.0
    """Seconds of the net per frame, as measured."""
    tried: Sequence[Mapping[str, Any]] = field(default=())
    """Each scheduler at its best setting that keeps the promise."""
    even: Mapping[str, Any] | None = None
    """Even keys (`fixed`) at the budget, or as many as the choice takes, as in `tried`; None: the net runs on
    every frame."""
    max_interval: int | None = None
    """The longest interval that the run may have; None in choices of older versions."""
    propagation: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `PropagationConfig` that differ from the run's own; empty: its propagator fills the gaps."""
    by_clip: Sequence[float] = field(default=())
    """`fidelity` of each clip; empty in choices of older versions, and where nothing was looked at."""
    ways: Sequence[Mapping[str, Any]] = field(default=())
    """Each propagator that was tried, the run's own first, with what it is worth at equal cost (`ways`)."""
    regions: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `RegionsConfig` that differ from the run's own; empty: its regions, or whole frames."""
    grids: Sequence[Mapping[str, Any]] = field(default=())
    """Whole frames and each grid that was tried beside them, at equal cost (`grids`)."""
    net_share: float | None = None
    """With regions: what N takes for a frame on average, in calls of whole frames, as measured. None: as
    `key_share`."""

    @property
    def cost_share(self) -> float:
        """What N takes for a frame on average, in calls of whole frames."""
        return self.key_share if self.net_share is None else self.net_share

    @property
    def aki(self) -> float:
        """Expected average key interval, frames."""
        return 1 / self.key_share

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


Tables = Mapping[str, Sequence[Valued]]
"""Per scheduler its points, shares falling."""


def rank(clips: int) -> int:
    """Clips of the sample that must keep the promise so that a new one does, with 90 %."""
    return min(clips, math.ceil((clips + 1) * CONFIDENCE))


def last_kept(valued: Sequence[Valued], limit: float, clips_c: np.ndarray) -> int:
    """The most saving place up to which the rank's share of these clips stays within the limit; -1: none."""
    if not valued:
        return -1
    fine_PC = np.stack([item.drop_C[clips_c] <= limit for item in valued])
    up_to_C = np.cumprod(fine_PC, axis=0).sum(axis=0) - 1
    return int(np.sort(up_to_C)[len(clips_c) - rank(len(clips_c))])


def best_within(tables: Tables, limit: float, clips_c: np.ndarray) -> Valued | None:
    """Of all schedulers the point with the fewest keys that keeps the limit."""
    found = [valued[place] for valued in tables.values() if (place := last_kept(valued, limit, clips_c)) >= 0]
    return min(found, key=lambda item: item.point.share, default=None)


def choose_by_drop(tables: Tables, max_drop: float) -> tuple[Valued | None, int, float]:
    """The choice (None: only the net on every frame keeps the promise), the clips on which it held when they
    were left out, and the limit that was used in the end."""
    clips = _clips(tables)
    limit, needed = _START * max_drop, math.ceil(CONFIDENCE * clips) if clips >= LEAST_CLIPS else clips - 1
    for _ in range(_TRIES):
        kept = sum(_held_out(tables, limit, max_drop, clip, clips) for clip in range(clips))
        best = best_within(tables, limit, np.arange(clips))
        if kept >= needed or best is None:
            return best, kept, limit
        limit *= _TIGHTER
    return None, clips, limit


def _held_out(tables: Tables, limit: float, max_drop: float, clip: int, clips: int) -> bool:
    others_c = np.delete(np.arange(clips), clip)
    best = best_within(tables, limit, others_c)
    return best is None or bool(best.drop_C[clip] <= max_drop)


def note_of(best: Valued | None, clips: int) -> str:
    """What must be said beside a choice by `max_drop`."""
    if best is None:
        return (
            "no schedule tried keeps the promise on clips that it was not chosen on, so the net runs on "
            "every frame: nothing is lost, and nothing saved"
        )
    if clips < LEAST_CLIPS:
        return (
            f"{clips} clips are too few for a promise on 9 of 10 others (it needs {LEAST_CLIPS}): this holds "
            f"on about {clips} of {clips + 1}"
        )
    return ""


def choose_by_budget(tables: Tables, budget: float, frames: Sequence[int], seed: int) -> Valued | None:
    """Of all points within the budget the one with the best fidelity; None: none is within it."""
    within = [item for valued in tables.values() for item in valued if fits(item.point, budget, frames, seed)]
    return max(within, key=lambda item: (item.quality_C.mean(), -item.point.share), default=None)


def fits(point: Point, budget: float, frames: Sequence[int], seed: int) -> bool:
    """Is the long-run share within the budget, 9 times in 10 when clips are drawn again?"""
    if point.share > budget * (1 + 1e-9):
        return False
    if point.family == FIXED:
        return True
    rng, clips = np.random.default_rng(seed), len(frames)
    shares = []
    for _ in range(200):
        drawn = rng.integers(0, clips, clips)
        keys = [keys_m for c in drawn for keys_m in point.of_clip(c)]
        lengths = [frames[c] for c in drawn for _ in point.parts]
        shares.append(long_run_share(keys, lengths, point.parts))
    return float(np.quantile(shares, CONFIDENCE)) <= budget * (1 + 1e-9)


def interval_of_mean(values_C: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over clips."""
    rng = np.random.default_rng(seed)
    means = values_C[rng.integers(0, len(values_C), (DRAWS, len(values_C)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def conclude(
    best: Valued | None,
    *,
    asked: Mapping[str, float],
    frames: Sequence[int],
    seed: int,
    note: str = "",
    held_out_kept: int | None = None,
    net_s: float = 0.0,
    tried: Sequence[Mapping[str, Any]] = (),
    even: Mapping[str, Any] | None = None,
) -> Choice:
    """The choice in numbers; without a point the net runs on every frame."""
    clips = len(frames)
    if best is None:
        best = Valued(
            point=Point(family=EVERY, settings={"name": EVERY}, keys=(), share=1.0), quality_C=np.ones(clips)
        )
    low, high = interval_of_mean(best.quality_C, seed)
    return Choice(
        asked=dict(asked),
        settings=dict(best.point.settings),
        can_keep=best.point.family != EVERY and not note,
        note=note,
        key_share=best.point.share,
        fidelity=100 * float(best.quality_C.mean()),
        fidelity_low=100 * low,
        fidelity_high=100 * high,
        worst_drop=float(best.drop_C.max()),
        by_clip=tuple((100 * best.quality_C).tolist()),
        clips=clips,
        frames=sum(frames),
        held_out_kept=held_out_kept,
        net_s=net_s,
        tried=tuple(tried),
        even=even,
    )


def unseen(config: SegmentConfig, why: str, lengths: Sequence[int] = ()) -> Choice:
    """What keeps the promise without a look at the corpus: even keys at the budget, or every frame.

    `lengths`: frames of the segments, as far as they are known; each of them begins with a key.
    """
    most, budget = config.scheduler.max_interval, config.budget
    if budget is None:
        assert config.max_drop is not None
        asked, settings, share = {"max_drop": config.max_drop}, {"name": EVERY}, 1.0
    else:
        pixels = usual_pixels(config.regions, config.working_size_spec)
        intervals = range(min(most, interval_within(budget / pixels)), most + 1)
        shares = [pixels * _even_share(interval, lengths) for interval in intervals]
        share = next((each for each in shares if each <= budget * (1 + 1e-9)), min(shares))
        settings = {"name": FIXED, "interval": intervals[shares.index(share)]}
        asked = {"budget": budget}
    lossless = 100.0 if budget is None else None
    kept = budget is not None and share <= budget * (1 + 1e-9)
    if budget is not None and not kept:
        why += (
            f". At --scheduler.max_interval {most} there are more keys than that, so the budget is exceeded"
        )
    return Choice(
        asked=asked,
        settings=settings,
        can_keep=kept,
        note=why,
        key_share=share,
        fidelity=lossless,
        fidelity_low=lossless,
        fidelity_high=lossless,
        worst_drop=None if lossless is None else 0.0,
        clips=0,
        frames=0,
        max_interval=most,
        regions=regions_of(config, settings),
    )


def regions_of(config: SegmentConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The run's own regions as a choice says them; whole frames where the net runs on every frame, which
    keeps a promise on whole frames alone."""
    if not config.regions.on:
        return {}
    grid = "1x1" if settings["name"] == EVERY else config.regions.grid
    return {"grid": grid, "overlap": config.regions.overlap}


def _even_share(interval: int, lengths: Sequence[int]) -> float:
    """Keys per frame of segments of these lengths; without any, in the long run."""
    return sum(-(-frames // interval) for frames in lengths) / sum(lengths) if lengths else 1 / interval


def _clips(tables: Tables) -> int:
    return len(next(item for valued in tables.values() for item in valued).quality_C)


Value = Callable[[Sequence[Point]], list[Valued]]
"""Values points on all clips (a task per clip that puts the missing intervals together)."""


# --- in words: the table that people read before the job begins -------------------------------------------


def describe(choice: Choice) -> str:
    """The choice as a table for people."""
    unit = "key frames" if _counted(choice) == "keys" else _counted(choice)
    asked = "".join(
        f"at most {100 * v:g} % {unit}" if name == "budget" else f"at most {v:g} points lost on a clip"
        for name, v in choice.asked.items()
    )
    lines = [
        ("asked", asked),
        ("chosen", describe_settings(choice)),
        ("expected AKI", f"{choice.aki:.1f} frames ({_share(choice)})"),
        *_expected(choice),
        ("even keys beside it", _even(choice)),
        *_propagator(choice),
        *_regions(choice),
    ]
    if choice.held_out_kept is not None:
        lines.append(("held-out check", f"kept on {choice.held_out_kept} of {choice.clips} clips left out"))
    if choice.note:
        lines.append(("note", choice.note))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)


def _share(choice: Choice) -> str:
    """Keys per frame, or what regions come to."""
    time = "" if choice.net_share is None else f", {100 * choice.net_share:.1f} % of the net's time"
    return f"{100 * choice.key_share:.1f} % {_counted(choice)}{time}"


def _counted(choice: Choice) -> str:
    """What its shares are of."""
    return "keys" if choice.regions.get("grid", "1x1") == "1x1" else "of the pixels"


def _propagator(choice: Choice) -> list[tuple[str, str]]:
    """What fills the gaps, and what else was tried."""
    if not choice.ways:
        return []
    tried = []
    for row in choice.ways:
        known = row["fidelity"] is not None
        worth = (
            f"{row['fidelity']:.2f} at {100 * row['key_share']:.1f} % keys"
            if known
            else "has no setting that fits"
        )
        tried.append(f"{row['propagator']} {worth}, {row['frame_gflop']:.3g} GFLOP a frame")
    name = choice.propagation.get("name", choice.ways[0]["propagator"])
    return [("propagator", f"{name} (at equal cost or less: {'; '.join(tried)})")]


def _regions(choice: Choice) -> list[tuple[str, str]]:
    """Which regions have keys of their own, and what else was tried."""
    if not choice.grids:
        return []
    tried = []
    for row in choice.grids:
        worth = "has no setting that fits"
        if row["fidelity"] is not None:
            worth = f"{row['fidelity']:.2f} at {100 * row['key_share']:.1f} % of the pixels"
        if row["difference"] is not None:
            low, high = row["difference"]
            worth += f" ({low:+.2f} to {high:+.2f} against whole frames)"
        tried.append(f"{row['grid']} {worth}, all crops cost {row['crops']:.2f} frames")
    grid = choice.regions.get("grid", choice.grids[0]["grid"])
    return [("regions", f"{grid} (at equal cost or less: {'; '.join(tried)})")]


def _expected(choice: Choice) -> list[tuple[str, str]]:
    """Fidelity and what is saved, as far as they were looked at."""
    saved = f"{100 * (1 - choice.cost_share):.1f} % of the net's calls"
    if not choice.clips:
        fidelity = "not known: nothing was looked at" if choice.fidelity is None else "100: every frame"
        return [("expected fidelity", fidelity), ("saved", saved)]
    lines = [
        (
            "expected fidelity",
            f"{choice.fidelity:.2f} of 100 (95 %: {choice.fidelity_low:.2f} to {choice.fidelity_high:.2f}, "
            f"mean over {choice.clips} clips); the worst clip loses {choice.worst_drop:.2f}",
        )
    ]
    seconds = 1000 * (1 - choice.cost_share) * choice.net_s
    return [*lines, ("saved", f"{saved}: {seconds:.0f} s per 1,000 frames")]


def _even(choice: Choice) -> str:
    """`fixed` at the same budget."""
    if choice.settings["name"] == FIXED:
        return f"are what was chosen ({FIXED})"
    if choice.even is None or choice.fidelity is None:
        return "nothing to compare: the net runs on every frame"
    row = choice.even
    under = f" under {choice.ways[0]['propagator']}" if choice.propagation else ""
    return (
        f"{FIXED}, interval {row['interval']}{under} ({100 * row['key_share']:.1f} % {_counted(choice)}): "
        f"fidelity {row['fidelity']:.2f}, the worst clip loses {row['worst_drop']:.2f}; the choice is "
        f"{choice.fidelity - row['fidelity']:+.2f} points"
    )


def describe_settings(choice: Choice) -> str:
    """``warp_error, threshold 3.2``."""
    settings = dict(choice.settings)
    name = settings.pop("name")
    return ", ".join([str(name), *(f"{key} {value}" for key, value in settings.items())])


def plain_choice(choice: Choice) -> dict[str, Any]:
    names = ("key_share", "fidelity", "fidelity_low", "fidelity_high", "worst_drop", "can_keep")
    facts = choice.to_json()
    return {"settings": facts["settings"]} | {name: facts[name] for name in names}
