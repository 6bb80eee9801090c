"""Schedulers on clips that they never saw, one operating point for all clips: the part of `schedulers` that
learns.

Clips are left out in turn. What is left trains the learned schedulers and sets the thresholds of all: for
each wanted interval the one that made it there. Every scheduler then has, on the clips left out, so many keys
and so much quality for each wanted interval; quality at intervals of exactly 10, 25 and 50 is read off
between them. Intervals of which a clip does not hold two on average are left out.

| row              | what                                                                                   |
|------------------|----------------------------------------------------------------------------------------|
| the heuristics   | their score, online                                                                    |
| expected_loss    | `train-decision` on cheap features, online; on tables of `accuracy` DVSNet's decision  |
|                  | net, and named `confidence`                                                            |
| confidence_sum   | its expected losses added up since the key, online                                     |
| policy           | `train-policy`, light, REINFORCE, online; decides at every frame that may be key        |
| paced            | `train-policy --policy paced --decision` on `moving_share`, rewarded two-sided, online  |
| planner          | `train-planner`, looks ahead, window by window with the masks of its own keys           |
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.score_walk import SCORES, run_scores
from vidseg_core.config.catalogue import AGREEMENT
from vidseg_core.config.recipes import EpisodeRecipe, ReinforceRecipe
from vidseg_core.config.train_planner import TrainPlannerConfig
from vidseg_core.episodes.on_tables import LookaheadTable
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.oracle import divide, one_sided_curve, share_of_gap, two_sided_curve
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.table_set import TableSet, join_tables
from vidseg_core.episodes.walk import counts_T, even_keys, feature, two_sided_of
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.planner import PlannerFacts, PlannerModel
from vidseg_core.models.policy_file import read_policy
from vidseg_core.scheduling.lookahead_features import LOOKAHEAD_FEATURES
from vidseg_core.scheduling.moving import moving_share
from vidseg_core.scheduling.planner import PlannerCore
from vidseg_core.training.decision_loop import DecisionOptions, train_decision
from vidseg_core.training.planner_fit import Lesson, cross_fit, lesson_of, price_at, priced, value_of
from vidseg_core.training.policy_loop import POLICY, PolicyOptions, train_policy

TARGETS = (8.0, 10.0, 12.5, 16.0, 20.0, 25.0, 31.0, 40.0, 50.0, 63.0)
"""Wanted intervals: dense, since quality is concave in keys, and what is read between two of them too low."""
INTERVALS = (10, 25, 50)
SIDES = ("one", "two")
FIXED = tuple(range(4, 13)) + tuple(range(14, 91, 4))
RESAMPLES = 200
PACED = ReinforceRecipe(
    episodes=800, lr=0.005, epsilon=1.0, entropy=0.02, credit="to_go", baseline="leave_one_out"
)
LEARN = TrainPlannerConfig(tables=("tables",), output="planner")
"""How the planner learns: as by default."""
Made = dict[tuple[str, str], np.ndarray]
"""(scheduler, sides) -> [targets, 2]: keys and total quality on one clip."""


@dataclass(frozen=True)
class Unseen:
    """Quality of one scheduler at one interval on all clips left out."""

    group: str
    scheduler: str
    sides: str
    interval: int
    quality: float
    fixed: float
    oracle: float
    share: float
    low: float
    high: float


def unseen_rows(group: str, tables: Sequence[EpisodeTable], *, seeds: int, episodes: int) -> list[Unseen]:
    """All schedulers on the clips of a group; needs three clips at least."""
    if len(tables) < 3:
        return []
    stride = int(tables[0].fingerprint["key_stride"])
    lessons = [lesson_of(table, max(stride, 3), table.horizon) for table in tables]
    made = [_left_out(lessons, number, seeds, episodes) for number in range(len(tables))]
    curves = {
        "one": [one_sided_curve(table) for table in tables],
        "two": [two_sided_curve(table) for table in tables],
    }
    even = {sides: [even_points(table, sides) for table in tables] for sides in SIDES}
    rows = []
    mean_frames = np.mean([table.frames for table in tables])
    for sides in SIDES:
        names = [name for name, side in made[0] if side == sides]
        for interval in (n for n in INTERVALS if 2 * n <= mean_frames):
            for name in ("fixed", *names):
                clips = even[sides] if name == "fixed" else [clip[name, sides] for clip in made]
                rows.append(row_of(group, name, sides, interval, tables, clips, even[sides], curves[sides]))
    return rows


# --- values ------------------------------------------------------------------------------------------------


def row_of(
    group: str,
    name: str,
    sides: str,
    interval: int,
    tables: Sequence[EpisodeTable],
    clips: Sequence[np.ndarray],
    even: Sequence[np.ndarray],
    curves: Sequence[object],
) -> Unseen:
    def at(picks: np.ndarray) -> tuple[float, float, float]:
        frames = sum(tables[c].frames for c in picks)
        counted = sum(int(counts_T(tables[c]).sum()) for c in picks)
        keys = frames / interval
        best = [divide([curves[c] for c in picks], int(keys) + n).total for n in (0, 1)]  # type: ignore[misc]
        oracle = best[0] + (keys - int(keys)) * (best[1] - best[0])
        quality, fixed = (read_at(np.sum([part[c] for c in picks], axis=0), keys) for part in (clips, even))
        return quality / counted, fixed / counted, oracle / counted

    everything = np.arange(len(tables))
    quality, fixed, oracle = at(everything)
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(RESAMPLES):
        try:
            shares.append(share_of_gap(*at(rng.integers(0, len(tables), len(tables)))))
        except EpisodeError:  # too few keys for these clips
            continue
    low, high = np.nanquantile(shares, (0.05, 0.95))
    share = share_of_gap(quality, fixed, oracle)
    return Unseen(group, name, sides, interval, quality, fixed, oracle, share, float(low), float(high))


def read_at(points_P2: np.ndarray, keys: float) -> float:
    order = np.argsort(points_P2[:, 0], kind="stable")
    return float(np.interp(keys, points_P2[order, 0], points_P2[order, 1]))


def worth_of(table: EpisodeTable, keys: np.ndarray, sides: str) -> tuple[float, float]:
    """(keys, total quality); two-sided, keys move to the frames of the two-sided table."""
    if sides == "two":
        step = int(table.fingerprint["two_sided_stride"])
        keys = np.unique(np.minimum((keys + step // 2) // step, (table.frames - 1) // step) * step)
    return float(len(keys)), value_of(table, keys, sides == "two")


def even_points(table: EpisodeTable, sides: str) -> np.ndarray:
    least = -(-table.frames // (table.horizon - 3))
    step = int(table.fingerprint["two_sided_stride"])
    rows = []
    for interval in FIXED:
        keys = even_keys(table.frames, max(least, round(table.frames / interval)))
        keys = np.unique(np.minimum((keys + step // 2) // step, (table.frames - 1) // step) * step)
        rows.append(worth_of(table, keys, sides))
    return np.array(rows)


# --- schedulers --------------------------------------------------------------------------------------------


def _left_out(lessons: Sequence[Lesson], number: int, seeds: int, episodes: int) -> Made:
    """Every scheduler on one clip, trained on the others."""
    rest = [lesson for place, lesson in enumerate(lessons) if place != number]
    table, tables = lessons[number].table, [lesson.table for lesson in rest]
    found: dict[str, list[list[np.ndarray]]] = {}
    for name in ("random", "frame_difference", "flow_magnitude", "warp_error"):
        found[name] = [_by_score(lambda t, n=name: SCORES[n](t, 0), tables, table)]
    for seed in range(seeds):
        net = decision_net(tables, seed)
        loss = loss_of(net)
        alone = "confidence" if table.fingerprint.get("quality") == AGREEMENT else "expected_loss"
        found.setdefault(alone, []).append(_by_score(loss, tables, table))
        total: Callable[[EpisodeTable], np.ndarray] = lambda t, f=loss: summed(f(t))  # noqa: E731
        found.setdefault("confidence_sum", []).append(_by_score(total, tables, table))
        if episodes:
            found.setdefault("policy", []).append(_policy(tables, table, seed, episodes))
            found.setdefault("paced", []).append(paced(tables, [table], seed, net)[0])
    made = {
        (name, sides): np.mean([[worth_of(table, keys, sides) for keys in run] for run in runs], axis=0)
        for name, runs in found.items()
        for sides in SIDES
    }
    return made | _planner(rest, lessons[number])


def _by_score(
    score: Callable[[EpisodeTable], np.ndarray], tables: Sequence[EpisodeTable], table: EpisodeTable
) -> list[np.ndarray]:
    """Keys for each target, thresholds from `tables`."""
    return [np.flatnonzero(row) for row in run_scores(table, score(table), thresholds_of(score, tables))]


def thresholds_of(score: Callable[[EpisodeTable], np.ndarray], tables: Sequence[EpisodeTable]) -> np.ndarray:
    """The threshold that makes each target interval on these clips together."""
    scores = [score(t) for t in tables]
    pool = np.concatenate([s[:, 1:][np.isfinite(s[:, 1:])] for s in scores])
    tried = np.unique(np.quantile(pool, 1.0 - np.geomspace(1e-4, 0.9, 120)))
    counts = sum(
        run_scores(t, s, tried).sum(axis=1).astype(float) for t, s in zip(tables, scores, strict=True)
    )
    frames = sum(t.frames for t in tables)
    return np.array([tried[np.argmin(np.abs(np.log(counts * aki / frames)))] for aki in TARGETS])


def decision_net(tables: Sequence[EpisodeTable], seed: int) -> DecisionNet:
    """What `train-decision` makes of the `flow` features; DVSNet's net where the tables hold agreement."""
    training = join_tables([_cheap(t) for t in tables])
    return train_decision(training, None, DecisionOptions(seed=seed)).net


def loss_of(net: DecisionNet) -> Callable[[EpisodeTable], np.ndarray]:
    """Expected loss of every pair."""

    def loss(table: EpisodeTable) -> np.ndarray:
        deviation = _cheap(table).deviation_TL1F
        flat = np.ascontiguousarray(deviation.reshape(-1, deviation.shape[-1]))
        return (1.0 - net.confidence(flat)).reshape(deviation.shape[:2])

    return loss


def summed(loss_TL1: np.ndarray) -> np.ndarray:
    """Losses added up since the key."""
    known = np.where(np.isfinite(loss_TL1), np.maximum(loss_TL1, 0.0), 0.0)
    known[:, 0] = 0.0
    return np.where(np.isfinite(loss_TL1), np.cumsum(known, axis=1), np.nan)


def _cheap(table: EpisodeTable) -> EpisodeTable:
    """Only the `flow` features."""
    from vidseg_core.scheduling.cheap_features import FEATURE_NAMES

    places = [table.feature_names.index(name) for name in FEATURE_NAMES]
    return replace(
        table,
        deviation_TL1F=np.ascontiguousarray(table.deviation_TL1F[..., places]),
        feature_names=tuple(FEATURE_NAMES),
    )


def _coarse(table: EpisodeTable, step: int) -> EpisodeTable:
    """The table of a scheduler that decides at every `step`-th frame: groups of so many frames are one."""
    count, reach = -(-table.frames // step), table.horizon // step
    own = np.full((count, reach + 1), np.nan, np.float32)
    for j in range(count):
        row = table.quality_TL1[j * step]
        for e in range(min(reach, count - 1 - j) + 1):
            group = row[e * step : min((e + 1) * step, table.frames - j * step)]
            if np.isfinite(group).any():
                own[j, e] = np.nanmean(group)
    deviation = np.ascontiguousarray(_cheap(table).deviation_TL1F[::step, : reach * step + 1 : step])
    return replace(
        _cheap(table),
        quality_TL1=own,
        deviation_TL1F=deviation,
        two_sided_TL1=None,
        grays_Thw=None,
        masks_Thw=None,
        fingerprint={**table.fingerprint, "key_stride": "1"},
    )


def _still(table: EpisodeTable, step: int) -> EpisodeTable:
    """`_coarse` with the feature `moving_share` (of groups: the motion since the group before) before the
    others, and with the two-sided table."""
    coarse = _coarse(table, step)
    count, wide = coarse.quality_TL1.shape
    row_J1, to_J1 = np.arange(count)[:, None], np.arange(wide)[None]
    now_J = np.append(0.0, feature(table, "difference_mean")[::step, step][: count - 1])
    now_JE = np.where(to_J1 > 0, np.append(now_J, np.zeros(wide))[row_J1 + to_J1], 0.0)
    share_JE = moving_share(now_JE, np.cumsum(now_JE, axis=1), np.maximum(to_J1, 1))
    exists_JE = row_J1 + to_J1 < count
    key_J = np.nan_to_num(table.key_quality_T[::step])[:, None]
    between_JE = two_sided_of(table)[::step, : (wide - 1) * step + 1 : step]
    two_JE = (between_JE + key_J) / step - coarse.quality_TL1[:, :1]
    two_JE[:, 0] = 0.0
    still_JE1 = np.where(exists_JE, share_JE, np.nan)[..., None].astype(np.float32)
    return replace(
        coarse,
        deviation_TL1F=np.concatenate([still_JE1, coarse.deviation_TL1F], axis=-1),
        feature_names=("moving_share", *coarse.feature_names),
        two_sided_TL1=two_JE.astype(np.float32),
        fingerprint={**coarse.fingerprint, "two_sided_stride": "1"},
    )


def paced(
    tables: Sequence[EpisodeTable], cuts: Sequence[EpisodeTable], seed: int, net: DecisionNet
) -> list[list[np.ndarray]]:
    """Keys on each of the cuts for each target of a paced policy with the decision net inside."""
    about = tables[0].fingerprint
    step = max(3, int(about["key_stride"]), int(about["two_sided_stride"]))
    episode = EpisodeRecipe(
        frames=270 // step, eta=1.0, history=90 // step, reward="shown", sides="two", interval=25 / step
    )
    keys = trained([_still(t, step) for t in tables], step, seed, "paced", episode, PACED, net)
    return [keys(_still(t, step)) for t in cuts]


def _policy(
    tables: Sequence[EpisodeTable], table: EpisodeTable, seed: int, episodes: int
) -> list[np.ndarray]:
    """Keys for each target of a policy trained by REINFORCE on coarse tables."""
    step = max(3, int(table.fingerprint["key_stride"]))
    episode = EpisodeRecipe(frames=270 // step, eta=0.06 * step, history=90 // step)
    reinforce = ReinforceRecipe(episodes=episodes, credit="to_go", baseline="leave_one_out")
    parts = [_coarse(t, step) for t in tables]
    return trained(parts, step, seed, "light", episode, reinforce)(_coarse(table, step))


def trained(
    tables: Sequence[EpisodeTable],
    step: int,
    seed: int,
    kind: str,
    episode: EpisodeRecipe,
    reinforce: ReinforceRecipe,
    decision: DecisionNet | None = None,
) -> Callable[[EpisodeTable], list[np.ndarray]]:
    """A policy trained on the coarse `tables`: keys for each target on a coarse table."""
    training = join_tables(tables)
    with tempfile.TemporaryDirectory() as folder:
        options = PolicyOptions(
            folder=Path(folder),
            kind=kind,
            seed=seed,
            episode=episode,
            reinforce=reinforce,
            intervals=(8.0,),
            val_every=10**6,
            save_every=10**6,
            log_every=10**6,
            decision=decision,
        )
        train_policy(training, None, options)
        net = read_policy(Path(folder) / POLICY)[0]
    points = Operator(training, history=90 // step).find(net.key_rate, [aki / step for aki in TARGETS])
    thresholds = np.array([point.threshold_P[0] for point in points])

    def keys(table: EpisodeTable) -> list[np.ndarray]:
        own: TableSet = join_tables([table])
        walked = Operator(own, history=90 // step).walk(net.key_rate, thresholds)
        return [np.append(0, step * (1 + np.flatnonzero(row))) for row in walked.keys_SN.T]

    return keys


def _planner(rest: Sequence[Lesson], lesson: Lesson) -> Made:
    """The planner's keys, a price for each target from the other clips."""
    found = cross_fit(rest, folds=LEARN.folds, intervals=INTERVALS)
    return {
        ("planner", sides): planner_points([found.model], [lesson], rest, found.fold_models, sides)[0]
        for sides in SIDES
    }


def planner_points(
    models: Sequence[PlannerModel],
    lessons: Sequence[Lesson],
    priced_on: Sequence[Lesson],
    priced_by: Sequence[PlannerModel],
    sides: str,
) -> list[np.ndarray]:
    """For each lesson, planned window by window with the model beside it, [targets, 2]: keys and total
    quality. What a target's price is, other lessons say, with models of theirs."""
    prices = priced(priced_by, priced_on, sides == "two")
    frames = sum(part.table.frames for part in priced_on)
    made = []
    for model, lesson in zip(models, lessons, strict=True):
        facts = PlannerFacts(
            feature_names=LOOKAHEAD_FEATURES,
            stride=lesson.stride,
            window=min(LEARN.window, 2 * lesson.table.horizon),
            reach=lesson.table.horizon,
            fingerprint={},
        )
        planned = LookaheadTable(PlannerCore(model, facts), lesson.table, two_sided=sides == "two")
        keys = [planned.keys(price_at(prices, frames / aki)) for aki in TARGETS]
        made.append(np.array([worth_of(lesson.table, part, sides) for part in keys]))
    return made


# --- printing ----------------------------------------------------------------------------------------------


def print_unseen(rows: Sequence[Unseen]) -> None:
    """One line a scheduler: quality and share of the gap fixed -> oracle at each interval."""
    if not rows:
        return
    print(f"\n{rows[0].group}: clips left out in turn, one operating point for all; 90 % over clips")
    shown = sorted({row.interval for row in rows})
    print(
        f"{'scheduler':18} {'sides':5} " + " ".join(f"| AKI {n:3}: quality share [90 %]     " for n in shown)
    )
    for sides in SIDES:
        of_side = [row for row in rows if row.sides == sides]
        for name in dict.fromkeys(row.scheduler for row in of_side):
            cells = [
                f"{r.quality:.3f} {r.share:+6.0%} [{r.low:+6.0%}, {r.high:+6.0%}]"
                for r in of_side
                if r.scheduler == name
            ]
            print(f"{name:18} {sides:5} " + " ".join(f"| {cell:35}" for cell in cells))
        print(
            f"{'oracle':18} {sides:5} "
            + " ".join(f"| {r.oracle:<35.3f}" for r in of_side if r.scheduler == "fixed")
        )
