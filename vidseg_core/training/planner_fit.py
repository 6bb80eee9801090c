"""How a planner learns: ridge regression of losses on tables, judged by the schedules that come of it.

Model: what a frame loses under a key is the quality that the key action would have, minus the quality that
propagation gives (the gain of DVRL Eq. 1). It is regressed on the features of the pair, each clip with equal
weight and as a deviation from the clip's own mean: between clips everything differs at once, and few clips
cannot say what made the difference. Near pairs weigh more than far ones, as 1 / distance.

Clips are divided into folds; the model for a fold's clips has been learned from the other folds. The
ridge penalty whose schedules are best there is taken, and the weights are learned again from all clips.

Invariant: the model depends on the tables, their names and the options alone.

Legend: J groups of `stride` frames, E longest distance in groups (1 = + 1), Q inputs; N prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.walk import counts_T, two_sided_of, two_sided_total, walk
from vidseg_core.models.planner import PlannerModel, inputs_of
from vidseg_core.scheduling.lookahead_features import Pairs, lookahead_features
from vidseg_core.scheduling.lookahead_values import (
    best_keys,
    filled,
    one_sided_value,
    sides_inputs,
    two_sided_value,
)

PRICES = np.geomspace(0.01, 40.0, 48)
"""Prices of a key that are tried, in total quality."""
STRENGTHS = (0.01, 0.03, 0.1, 0.3)
"""Ridge penalties that are tried, in units of the features' variance."""
TWO_STRENGTH = 0.1
"""Ridge penalty of the two-sided weights."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One table as a planner learns from it."""

    table: EpisodeTable
    stride: int
    inputs_JEQ: np.ndarray
    """float64: what the model reads; NaN where there is no pair."""
    lost_JE: np.ndarray
    """float64: mean loss of the frames of group j + e under key j; NaN: not known."""
    between_JE: np.ndarray | None
    """float64: mean loss of the frames between keys j and j + e, two-sided; NaN: not known."""

    @property
    def counted(self) -> int:
        return int(counts_T(self.table).sum())


def check_table(table: EpisodeTable, stride: int) -> None:
    """`EpisodeError` for a table that a planner cannot learn from."""
    where = f"clip {table.clip}, segment {table.segment}"
    if table.grays_Thw is None or table.masks_Thw is None:
        raise EpisodeError(f"{where}: holds no small pictures; build it with --pictures")
    key_stride = int(table.fingerprint.get("key_stride", 1))
    if stride % key_stride:
        raise EpisodeError(
            f"{where}: only every {key_stride} frames may be key there; give a --stride that is a multiple"
        )
    if table.horizon < 2 * stride:
        raise EpisodeError(
            f"{where}: a horizon of {table.horizon} frame(s), less than twice --stride {stride}"
        )
    if table.frames <= stride:
        raise EpisodeError(f"{where}: has {table.frames} frame(s), fewer than a stride of {stride}")


def lesson_of(table: EpisodeTable, stride: int, reach: int) -> Lesson:
    """What there is to learn from a table of intervals of at most `reach` frames; `EpisodeError` as
    `check_table`."""
    check_table(table, stride)
    assert table.grays_Thw is not None and table.masks_Thw is not None
    features_JEP = lookahead_features(
        list(table.grays_Thw[::stride]),
        list(table.masks_Thw[::stride]),
        stride,
        reach // stride,
        Pairs(most=0),
    )
    return Lesson(
        table=table,
        stride=stride,
        inputs_JEQ=inputs_of(features_JEP),
        lost_JE=_lost(table, stride, reach // stride),
        between_JE=_between(table, stride, reach // stride),
    )


def _lost(table: EpisodeTable, stride: int, reach: int) -> np.ndarray:
    """What the frames of each group lose on average under each key."""
    own_T = table.key_quality_T.astype(np.float64)
    count = -(-table.frames // stride)
    lost_JE = np.full((count, reach + 1), np.nan)
    for j in range(count):
        key = j * stride
        reached = min(table.frames - key, (reach + 1) * stride, table.horizon + 1)
        loss = own_T[key : key + reached] - table.quality_TL1[key, :reached]
        for e in range(1, -(-reached // stride)):
            group = loss[e * stride : (e + 1) * stride]
            known = group[np.isfinite(group)]
            if len(known):
                lost_JE[j, e] = known.mean()
    return lost_JE


def _between(table: EpisodeTable, stride: int, reach: int) -> np.ndarray | None:
    two_stride = int(table.fingerprint.get("two_sided_stride", 0))
    if table.two_sided_TL1 is None or two_stride < 1 or stride % two_stride:
        return None
    two_TL1 = two_sided_of(table).astype(np.float64)
    own_T1 = np.concatenate([[0.0], np.cumsum(np.nan_to_num(table.key_quality_T.astype(np.float64)))])
    count_T1 = np.concatenate([[0], np.cumsum(counts_T(table))])
    rows_J = two_TL1[::stride, : reach * stride + 1 : stride]
    count = len(rows_J)
    key_J = np.arange(count)[:, None] * stride
    next_JE = np.minimum(key_J + np.arange(rows_J.shape[1]) * stride, table.frames - 1)
    frames_JE = count_T1[next_JE] - count_T1[np.minimum(key_J + 1, table.frames)]
    best_JE = own_T1[next_JE] - own_T1[np.minimum(key_J + 1, table.frames)]
    between_JE = np.full((count, reach + 1), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        between_JE[:, : rows_J.shape[1]] = np.where(frames_JE > 0, (best_JE - rows_J) / frames_JE, np.nan)
    between_JE[:, 0] = np.nan
    return between_JE


# --- regression --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moments:
    """What a clip says: of inputs and, last, the loss."""

    mean_Q1: np.ndarray
    square_Q1Q1: np.ndarray
    """Covariance."""


def moments_of(inputs_JEQ: np.ndarray, lost_JE: np.ndarray, where: str) -> Moments:
    """The normal equations of one clip's pairs, weighted by 1 / e; `EpisodeError` if none is known."""
    known_JE = np.isfinite(lost_JE) & np.isfinite(inputs_JEQ).all(axis=2)
    known_JE[:, 0] = False
    if not known_JE.any():
        raise EpisodeError(f"clip {where}: no pair of frames is known")
    rows = np.concatenate([inputs_JEQ[known_JE], lost_JE[known_JE][:, None]], axis=1)
    weights = 1.0 / np.nonzero(known_JE)[1]
    weights /= weights.sum()
    mean = weights @ rows
    return Moments(mean, (rows * weights[:, None]).T @ rows - np.outer(mean, mean))


def lesson_moments(lesson: Lesson) -> Moments:
    """The normal equations of one clip's one-sided losses."""
    return moments_of(lesson.inputs_JEQ, lesson.lost_JE, lesson.table.clip)


def ridge(moments: Sequence[Moments], strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(centre, scale, weights and constant): regression within clips."""
    mean_Q1 = np.mean([part.mean_Q1 for part in moments], axis=0)
    square = np.mean([part.square_Q1Q1 for part in moments], axis=0)
    spread_Q = np.sqrt(np.maximum(np.diag(square)[:-1], 0.0))
    scale_Q = np.where(spread_Q > 1e-6, 1.0 / np.maximum(spread_Q, 1e-6), 0.0)
    system = square[:-1, :-1] * np.outer(scale_Q, scale_Q) + strength * np.eye(len(scale_Q))
    weight_Q = np.linalg.solve(system, square[:-1, -1] * scale_Q)
    return mean_Q1[:-1], scale_Q, np.append(weight_Q, mean_Q1[-1])


def fit(lessons: Sequence[Lesson], moments: Sequence[Moments], strength: float) -> PlannerModel:
    """Regression on these clips, and from its predictions the two-sided weights."""
    centre_Q, scale_Q, weight_Q1 = ridge(moments, strength)
    model = PlannerModel(centre_Q=centre_Q, scale_Q=scale_Q, weight_Q1=weight_Q1, two_4=np.zeros(4))
    return PlannerModel(**(model.arrays() | {"two_4": _fit_two(model, lessons)}))


def _fit_two(model: PlannerModel, lessons: Sequence[Lesson]) -> np.ndarray:
    parts = []
    for lesson in lessons:
        if lesson.between_JE is None:
            return np.zeros(4)
        inputs_JES = sides_inputs(filled(model.loss(lesson.inputs_JEQ)), lesson.stride)
        parts.append(moments_of(inputs_JES, lesson.between_JE, lesson.table.clip))
    centre_S, scale_S, weight_S1 = ridge(parts, TWO_STRENGTH)
    weight_S = weight_S1[:-1] * scale_S
    return np.append(weight_S, weight_S1[-1] - centre_S @ weight_S)


# --- schedules ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Priced:
    """What prices came to on some clips together."""

    price_N: np.ndarray
    keys_N: np.ndarray
    total_N: np.ndarray
    """Total quality."""


def whole_schedules(model: PlannerModel, lesson: Lesson, two_sided: bool) -> list[np.ndarray]:
    """The keys of a clip for each of PRICES, chosen in one piece with the masks of all frames known."""
    loss_JE, frames, stride = filled(model.loss(lesson.inputs_JEQ)), lesson.table.frames, lesson.stride
    if two_sided:
        value_JE = two_sided_value(loss_JE, frames, stride, model.two_4)
    else:
        value_JE = one_sided_value(loss_JE, frames, stride)
    begins_J = np.append(np.arange(0, frames, stride), frames)
    may_J = np.ones(len(begins_J) - 1, bool)
    most = (loss_JE.shape[1] - 1) * stride
    return [
        np.array([0, *(stride * key for key in best_keys(value_JE, price, may_J, begins_J, most))])
        for price in PRICES
    ]


def value_of(table: EpisodeTable, keys: np.ndarray, two_sided: bool) -> float:
    """Total quality of a schedule."""
    return two_sided_total(table, keys) if two_sided else walk(table, keys).total


def priced(models: Sequence[PlannerModel], lessons: Sequence[Lesson], two_sided: bool) -> Priced:
    """All prices on these clips, each with the model beside it."""
    keys_N, total_N = np.zeros(len(PRICES)), np.zeros(len(PRICES))
    for model, lesson in zip(models, lessons, strict=True):
        schedules = whole_schedules(model, lesson, two_sided)
        keys_N += [len(keys) for keys in schedules]
        total_N += [value_of(lesson.table, keys, two_sided) for keys in schedules]
    return Priced(PRICES, keys_N, total_N)


def quality_at(found: Priced, keys: float, counted: int) -> float:
    """Mean quality with so many keys, linear between the prices around."""
    order = np.argsort(found.keys_N, kind="stable")
    return float(np.interp(keys, found.keys_N[order], found.total_N[order])) / max(1, counted)


def price_at(found: Priced, keys: float) -> float:
    """The price that makes so many keys; geometric between the prices around."""
    order = np.argsort(found.keys_N, kind="stable")
    return float(np.exp(np.interp(keys, found.keys_N[order], np.log(found.price_N[order]))))


# --- folds -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Models of all folds at the strength that did best, and the model of all clips."""

    model: PlannerModel
    strength: float
    fold_models: list[PlannerModel]
    """For each lesson the model that has not seen its clip."""
    scores: dict[float, float] = field(default_factory=dict)
    """Strength -> mean quality at the wanted intervals on clips left out."""


def cross_fit(
    lessons: Sequence[Lesson],
    *,
    folds: int,
    intervals: Sequence[float],
    strengths: Sequence[float] = STRENGTHS,
) -> CrossFit:
    """Learn from all clips; what is left to choose is chosen on clips left out."""
    clips = sorted({lesson.table.video for lesson in lessons})
    fold_of = {clip: number % min(folds, len(clips)) for number, clip in enumerate(clips)}
    places = [fold_of[lesson.table.video] for lesson in lessons]
    moments = [lesson_moments(lesson) for lesson in lessons]
    alone = len(clips) == 1
    scores: dict[float, float] = {}
    models: dict[float, list[PlannerModel]] = {}
    for strength in strengths:
        of_fold = {
            fold: fit(*_without(lessons, moments, places, -1 if alone else fold), strength)
            for fold in sorted(set(places))
        }
        models[strength] = [of_fold[place] for place in places]
        scores[strength] = _score(models[strength], lessons, intervals)
    best = max(strengths, key=lambda strength: scores[strength])
    return CrossFit(fit(lessons, moments, best), best, models[best], scores)


def _without(
    lessons: Sequence[Lesson], moments: Sequence[Moments], places: Sequence[int], fold: int
) -> tuple[list[Lesson], list[Moments]]:
    keep = [number for number, place in enumerate(places) if place != fold]
    return [lessons[number] for number in keep], [moments[number] for number in keep]


def _score(models: Sequence[PlannerModel], lessons: Sequence[Lesson], intervals: Sequence[float]) -> float:
    frames, counted = sum(x.table.frames for x in lessons), sum(x.counted for x in lessons)
    sides = [False, *([True] if all(x.between_JE is not None for x in lessons) else [])]
    found = [priced(models, lessons, two_sided) for two_sided in sides]
    return float(np.mean([quality_at(f, frames / aki, counted) for f in found for aki in intervals]))
