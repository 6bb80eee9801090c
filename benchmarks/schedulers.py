"""Quality of key frame schedulers at average key intervals of 10, 25, 50 and 100, beside the best possible.

    python -m benchmarks.schedulers [--clips N] [--frames N] [--stride N] [--horizon N] [--tables DIR]
                                    [--seeds N] [--episodes N] [--groups NAME ...] [--json FILE] [--data DIR]

Faces (landmark labels: read "agreement with the landmark labels"), DAVIS sequences and the CamVid clip where
they are at hand, else generated scenes. The labels stand in for N, so figures show scheduling and propagation
alone (DIS flow at 256 px, label propagation); a key frame scores 1. Quality: mean over frames of mIoU over
the classes that a frame's labels or its mask hold. `faces_fidelity`: the faces once more, with `tiny-face`
for N and its own masks for truth; `faces_eq2`: the same, and quality is the share of pixels that agree with
them (DVRL Eq. 2, DVSNet Eq. 1). `--groups`: some of faces, faces_fidelity, faces_eq2, davis, camvid.

Tables are built first (`vidseg build-episodes`; --tables keeps them for another time), then every scheduler
is valued on them, one-sided and two-sided. `--stride`: only every so many frames may be key, for all
schedulers and the oracle alike; 1 is exact and costs that much more. An interval is shown for clips of which
two fit and whose tables leave it some room (ROOM): 100 needs `--horizon 150 --frames 0`. `--frames 0`: whole
clips.

Each clip: a scheduler gets as many keys as `fixed` has, at most, with a threshold of its own for the clip.
Corpus: one threshold for all clips of a group, and the oracle divides the same number of keys among them.
`share`: of the gap between `fixed` and the oracle of the same propagation (100 % = the best schedule there
is), with a 90 % bootstrap interval over clips.

Last, learned schedulers and the others on clips that they never saw (`benchmarks.unseen`), where a group has
three clips at least, at 10, 25 and 50. `--episodes`: of REINFORCE for `policy`, 0 for no policies (`paced`
has its own 800); `--seeds`: nets of each kind.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.corpus import data_dir
from benchmarks.score_walk import SCORES, fit_threshold
from benchmarks.unseen import Unseen, print_unseen, unseen_rows
from vidseg_core.config.build_episodes import BuildEpisodesConfig
from vidseg_core.episodes.episodes_job import run_build_episodes
from vidseg_core.episodes.oracle import Curve, divide, one_sided_curve, share_of_gap, two_sided_curve
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.walk import counts_T, even_keys, two_sided_total, walk

INTERVALS = (10, 25, 50, 100)
ROOM = 1.2
"""The longest interval of the tables, in units of an average interval that is shown, is more than this."""
SIDES = ("one", "two")
AGAINST_N = {"faces_fidelity": "fidelity", "faces_eq2": "accuracy"}
"""Groups in which a net's own masks are the truth, and what is counted."""
RANDOM_SEEDS = 8
BOOTSTRAP = 1000

Schedules = list[list[np.ndarray]]
"""For each clip its schedules: one, or several whose mean counts (random ones)."""
Planner = Callable[[Sequence[EpisodeTable], Sequence[int]], Schedules]
"""(tables, most keys of each) -> schedules."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One scheduler on one clip, or on all clips of a group (clip `*`)."""

    group: str
    clip: str
    interval: int
    scheduler: str
    sides: str
    frames: int
    keys: float
    quality: float
    fixed: float
    oracle: float

    @property
    def share(self) -> float:
        return share_of_gap(self.quality, self.fixed, self.oracle)


def by_score(name: str, seeds: Sequence[int] = (0,)) -> Planner:
    """The online scheduler `name`, a threshold for each clip."""

    def plan(tables: Sequence[EpisodeTable], budgets: Sequence[int]) -> Schedules:
        return [
            [fit_threshold([table], [SCORES[name](table, seed)], most)[1][0] for seed in seeds]
            for table, most in zip(tables, budgets, strict=True)
        ]

    return plan


def by_one_score(name: str, seeds: Sequence[int] = (0,)) -> Planner:
    """The online scheduler `name`, one threshold for all clips."""

    def plan(tables: Sequence[EpisodeTable], budgets: Sequence[int]) -> Schedules:
        runs = [
            fit_threshold(tables, [SCORES[name](table, seed) for table in tables], sum(budgets))[1]
            for seed in seeds
        ]
        return [list(schedules) for schedules in zip(*runs, strict=True)]

    return plan


def fixed(tables: Sequence[EpisodeTable], budgets: Sequence[int]) -> Schedules:
    """Evenly spread keys, moved to the frames that may be key."""
    return [
        [on_grid(table, even_keys(table.frames, most))] for table, most in zip(tables, budgets, strict=True)
    ]


HEURISTICS = ("frame_difference", "flow_magnitude", "warp_error")
PLANNERS: Mapping[str, Planner] = {
    "fixed": fixed,
    "random": by_score("random", range(RANDOM_SEEDS)),
    **{name: by_score(name) for name in HEURISTICS},
}
"""Each clip on its own. A learned scheduler is one more entry here and, with one operating point, below."""
CORPUS_PLANNERS: Mapping[str, Planner] = {
    "fixed": fixed,
    "random": by_one_score("random", range(RANDOM_SEEDS)),
    **{name: by_one_score(name) for name in HEURISTICS},
}


def on_grid(table: EpisodeTable, keys: np.ndarray) -> np.ndarray:
    """The keys at the nearest frames that were tabulated."""
    stride = int(table.fingerprint["key_stride"])
    return np.unique(np.minimum((keys + stride // 2) // stride, (table.frames - 1) // stride) * stride)


# --- values ------------------------------------------------------------------------------------------------


def value(table: EpisodeTable, keys: np.ndarray, sides: str) -> float:
    """Total quality of a schedule; a last key that the two-sided table does not have is left out there."""
    if sides == "one":
        return walk(table, keys).total
    if len(keys) > 1 and keys[-1] % int(table.fingerprint["two_sided_stride"]):
        keys = keys[:-1]
    return two_sided_total(table, keys)


def mean_value(table: EpisodeTable, schedules: Sequence[np.ndarray], sides: str) -> float:
    return float(np.mean([value(table, keys, sides) for keys in schedules]))


def curves_of(tables: Sequence[EpisodeTable]) -> dict[str, list[Curve]]:
    return {
        "one": [one_sided_curve(table) for table in tables],
        "two": [two_sided_curve(table) for table in tables],
    }


def clip_rows(group: str, tables: Sequence[EpisodeTable], curves: Mapping[str, list[Curve]]) -> Iterator[Row]:
    """Every scheduler on every clip that is at least two intervals long."""
    for interval in INTERVALS:
        places = _long_enough(tables, interval)
        here = [tables[place] for place in places]
        budgets = [_budget(table, interval) for table in here]
        planned = {name: planner(here, budgets) for name, planner in PLANNERS.items()}
        for sides in SIDES:
            for number, table in enumerate(here):
                curve = curves[sides][places[number]]
                best = curve.schedule(curve.best_within(budgets[number]))
                found = {name: [schedules[number]] for name, schedules in planned.items()}
                yield from _rows(group, table.clip, interval, sides, [table], found | {"oracle": [[best]]})


def corpus_rows(
    group: str, tables: Sequence[EpisodeTable], curves: Mapping[str, list[Curve]]
) -> Iterator[Row]:
    """One operating point for the clips of a group together; quality is the mean over all their frames."""
    for interval in INTERVALS:
        places = _long_enough(tables, interval)
        if not places:
            continue
        here = [tables[place] for place in places]
        budgets = [_budget(table, interval) for table in here]
        planned = {name: planner(here, budgets) for name, planner in CORPUS_PLANNERS.items()}
        for sides in SIDES:
            mine = [curves[sides][place] for place in places]
            plan = divide(mine, sum(budgets))
            best = [[curve.schedule(keys)] for curve, keys in zip(mine, plan.keys, strict=True)]
            yield from _rows(group, "*", interval, sides, here, planned | {"oracle": best})


def _long_enough(tables: Sequence[EpisodeTable], interval: int) -> list[int]:
    return [
        place
        for place, table in enumerate(tables)
        if table.frames >= 2 * interval and table.horizon > ROOM * interval
    ]


def _budget(table: EpisodeTable, interval: int) -> int:
    return len(on_grid(table, even_keys(table.frames, -(-table.frames // interval))))


def _rows(
    group: str,
    clip: str,
    interval: int,
    sides: str,
    tables: Sequence[EpisodeTable],
    found: Mapping[str, Schedules],
) -> Iterator[Row]:
    """A row for each scheduler: its schedules on all of `tables` together."""
    counted = sum(int(counts_T(table).sum()) for table in tables)
    quality = {
        name: sum(mean_value(t, s, sides) for t, s in zip(tables, schedules, strict=True)) / counted
        for name, schedules in found.items()
    }
    for name, schedules in found.items():
        yield Row(
            group=group,
            clip=clip,
            interval=interval,
            scheduler=name,
            sides=sides,
            frames=sum(table.frames for table in tables),
            keys=float(sum(np.mean([len(keys) for keys in of_clip]) for of_clip in schedules)),
            quality=quality[name],
            fixed=quality["fixed"],
            oracle=quality["oracle"],
        )


# --- tables ------------------------------------------------------------------------------------------------


def sources(
    data: str | None, clips: int, frames: int, groups: Sequence[str] = ()
) -> dict[str, tuple[str, str]]:
    """Group -> (data set, split); of `groups`, if some are named."""
    root = data_dir(data)
    places = {
        "faces": ("face", "face", "all"),
        **dict.fromkeys(AGAINST_N, ("face", "face", "all")),
        "davis": ("davis", "davis2016", "all"),
        "camvid": ("camvid", "camvid", "clip_0016E5_15hz"),
    }
    found = {
        group: (f"{layout}:{root / folder}", split)
        for group, (layout, folder, split) in places.items()
        if root is not None and (root / folder).is_dir() and (not groups or group in groups)
    }
    return found or {"scenes": (f"scenes:videos={clips},frames={frames or 151},height=120,width=160", "all")}


def tables_of(
    group: str, source: tuple[str, str], options: argparse.Namespace, folder: Path
) -> list[EpisodeTable]:
    """The group's tables, built where they are missing; clips that cannot be tabulated are left out."""
    config = BuildEpisodesConfig(
        data=(source[0],),
        split=source[1],
        output=str(folder / group),
        limit=options.clips,
        clip_frames=options.frames,
        horizon=options.horizon,
        key_stride=options.stride,
        two_sided_stride=options.stride,
        features=("scores", "flow"),
        **({"segmenter": "tiny-face", "quality": AGAINST_N[group]} if group in AGAINST_N else {}),  # type: ignore[arg-type]
    )
    run_build_episodes(config)
    try:
        return load_tables(config.output)
    except EpisodeError:
        return []


# --- printing ----------------------------------------------------------------------------------------------


def print_group(group: str, rows: Sequence[Row]) -> None:
    clips = sorted({row.clip for row in rows if row.clip != "*"})
    print(f"\n{group}: {len(clips)} clips ({', '.join(clips)})")
    shown = sorted({row.interval for row in rows})
    print(
        f"{'scheduler':18} {'sides':5} "
        + " ".join(f"| AKI {interval:3}: keys quality share [90 %]      " for interval in shown)
    )
    for what, wanted in (
        ("each clip", [r for r in rows if r.clip != "*"]),
        ("corpus", [r for r in rows if r.clip == "*"]),
    ):
        print(f"- {what}")
        for sides in SIDES:
            for name in dict.fromkeys(row.scheduler for row in wanted):
                cells = []
                for interval in shown:
                    cells.append(
                        _cell(
                            [
                                r
                                for r in wanted
                                if (r.scheduler, r.sides, r.interval) == (name, sides, interval)
                            ]
                        )
                    )
                print(f"{name:18} {sides:5} " + " ".join(f"| {cell}" for cell in cells))


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return " " * 43
    keys, quality = np.mean([row.keys for row in rows]), np.mean([row.quality for row in rows])
    low, middle, high = gap_shares(rows)
    if np.isnan(middle):
        return f"{keys:12.1f}  {quality:.3f}    no gap" + " " * 14
    interval = f"[{low:+5.0%}, {high:+5.0%}]" if len(rows) > 1 else " " * 16
    return f"{keys:12.1f}  {quality:.3f} {middle:+6.0%} {interval}"


def gap_shares(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Share of the summed gaps, between its 5 % and 95 % points over resampled clips."""
    gained = np.array([row.quality - row.fixed for row in rows])
    gaps = np.array([row.oracle - row.fixed for row in rows])
    if gaps.sum() <= 1e-6:
        return float("nan"), float("nan"), float("nan")
    picks = np.random.default_rng(0).integers(0, len(rows), (BOOTSTRAP, len(rows)))
    gained_B, gaps_B = gained[picks].sum(axis=1), gaps[picks].sum(axis=1)
    shares = gained_B[gaps_B > 1e-6] / gaps_B[gaps_B > 1e-6]  # clips where nothing can be gained say nothing
    low, high = np.quantile(shares, (0.05, 0.95))
    return float(low), float(gained.sum() / gaps.sum()), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality of key frame schedulers against the best possible.")
    parser.add_argument("--json", help="write the raw rows to this file")
    parser.add_argument("--data", help="folder with face, davis2016 and camvid (default: $VIDSEG_DATA)")
    parser.add_argument("--tables", help="folder to keep the tables in")
    parser.add_argument("--clips", type=int, default=4, help="clips of each group")
    parser.add_argument("--frames", type=int, default=151, help="frames of each clip; 0: all")
    parser.add_argument("--stride", type=int, default=3, help="only every so many frames may be key")
    parser.add_argument("--horizon", type=int, default=90, help="longest interval in the tables, frames")
    parser.add_argument("--seeds", type=int, default=2, help="nets of each learned kind")
    parser.add_argument("--episodes", type=int, default=800, help="of REINFORCE for `policy`; 0: no policies")
    parser.add_argument("--groups", nargs="+", default=(), help="only these")
    options = parser.parse_args()
    rows: list[Row] = []
    unseen: list[Unseen] = []
    with tempfile.TemporaryDirectory() as scratch:
        for group, source in sources(options.data, options.clips, options.frames, options.groups).items():
            tables = tables_of(group, source, options, Path(options.tables or scratch))
            if not tables:
                continue
            curves = curves_of(tables)
            here = [*clip_rows(group, tables, curves), *corpus_rows(group, tables, curves)]
            print_group(group, here)
            rows += here
            found = unseen_rows(group, tables, seeds=options.seeds, episodes=options.episodes)
            print_unseen(found)
            unseen += found
    if options.json:
        data = {
            "seen": [asdict(row) | {"share": row.share} for row in rows],
            "unseen": [asdict(row) for row in unseen],
        }
        Path(options.json).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
