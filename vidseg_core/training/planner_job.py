"""``vidseg train-planner``: ridge regression on episode tables, and prices of a key. See `driver`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import cv2

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.train_planner import TrainPlannerConfig
from vidseg_core.config.words import count
from vidseg_core.episodes.store import encode_table, load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.planner import RULES, PlannerFacts, PricePoint, planner_bytes, read_planner
from vidseg_core.scheduling.lookahead_features import LOOKAHEAD_FEATURES
from vidseg_core.store.atomic import write_whole
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.driver import Ending, Run, Training, run_training
from vidseg_core.training.planner_fit import CrossFit, Lesson, check_table, cross_fit, lesson_of
from vidseg_core.training.planner_points import operating_points

PLANNER = "planner.safetensors"
MAY_DIFFER = ("class_names",)
"""Between sets that are learned from together, besides their own classes nothing may differ."""


def run_train_planner(config: TrainPlannerConfig, reporter: Reporter | None = None) -> int:
    """Train as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    return run_training(PlannerTraining(config, reporter))


class PlannerTraining(Training):
    """A planner, solved in closed form: no curve, and nothing to go on from."""

    verb = "train-planner"
    unit = "fold"
    saves = False
    measure = "quality on clips left out"
    """Of their schedules, mean over the intervals."""
    config: TrainPlannerConfig
    tables: list[EpisodeTable]
    digest: str
    reach: int
    """The longest interval, frames."""
    scores: Mapping[str, float] = {}
    """Ridge penalty -> quality on clips left out."""

    def size(self) -> tuple[int, int]:
        return self.config.folds, len(self.config.tables)

    def prepare(self) -> None:
        config, report = self.config, self.report
        cv2.setNumThreads(1)
        self.tables = tables = open_sets(config.tables)
        clips, frames = len({table.video for table in tables}), sum(table.frames for table in tables)
        self.steps = min(config.folds, clips)
        report.say(
            f"planner; {count(clips, 'clip')}, {count(frames, 'frame')}, {len(LOOKAHEAD_FEATURES)} features"
        )
        for table in tables:
            check_table(table, config.stride)
        self.reach = min(config.window, *(table.horizon for table in tables))
        if beyond := [f"{aki:g}" for aki in config.intervals if aki > self.reach]:
            longest = f"the longest is {self.reach} frames"
            report.say(f"no price is sought for intervals of {', '.join(beyond)}: {longest}")
        self.digest = _digest(tables)

    def decides(self) -> dict[str, Any]:
        return self.config.fingerprint_fields() | {"tables": self.digest, "rules": RULES}

    def train(self, run: Run) -> Standing:
        config, report = self.config, self.report
        started = time.monotonic()
        lessons = _lessons(self.tables, config, self.reach, report)
        found = cross_fit(
            lessons,
            folds=config.folds,
            intervals=_learnable(config, self.reach),
            strengths=config.strengths,
        )
        best = found.scores[found.strength]
        report.say(f"ridge penalty {found.strength:g}; clips left out plan {best:.4f}")
        facts = _facts(config, self.tables, self.digest, found, self.reach)
        points = operating_points(
            found.fold_models, lessons, facts, config.intervals, lambda point: report.say(describe(point))
        )
        write_whole(run.folder / PLANNER, planner_bytes(found.model, replace(facts, operating_points=points)))
        self.scores = {f"{strength:g}": score for strength, score in found.scores.items()}
        return Standing(step=self.steps, best=best, seconds=time.monotonic() - started)

    def finish(self, run: Run, standing: Standing) -> Ending:
        model, facts = read_planner(run.folder / PLANNER)
        return Ending(
            use=f"use it with --scheduler.name planner --scheduler.policy {run.folder / PLANNER}",
            files=(PLANNER,),
            parameters=model.weight_Q1.size + model.two_4.size,
            points=[asdict(point) for point in facts.operating_points],
            details={"strength": facts.strength, "scores": self.scores},
        )


def open_sets(places: Sequence[str]) -> list[EpisodeTable]:
    """The tables of all sets; `ConfigError` when they do not go together."""
    tables: list[EpisodeTable] = []
    for place in places:
        tables += load_tables(place)
    first = tables[0].fingerprint
    for table in tables:
        differs = [
            name
            for name in sorted({*first, *table.fingerprint})
            if name not in MAY_DIFFER and first.get(name) != table.fingerprint.get(name)
        ]
        if differs:
            problem = f"clip {table.clip} was made with another {', '.join(differs)} than {tables[0].clip}"
            raise ConfigError("--tables", problem)
    names = [(table.clip, table.segment) for table in tables]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError("--tables", f"clip {twice[0]} is in two of the sets")
    return tables


def describe(point: PricePoint) -> str:
    """An operating point in one phrase."""
    return (
        f"{point.sides}-sided, AKI {point.aki:.1f} -> {point.quality:.4f} on clips left out "
        f"(threshold {point.threshold:.4g})"
    )


def _lessons(
    tables: Sequence[EpisodeTable], config: TrainPlannerConfig, reach: int, report: Reporter
) -> list[Lesson]:
    lessons = []
    for number, table in enumerate(tables):
        lessons.append(lesson_of(table, config.stride, reach))
        report.show(f"looked at {number + 1}/{len(tables)} tables", {"tables": number + 1})
    return lessons


def _learnable(config: TrainPlannerConfig, reach: int) -> list[float]:
    """The wanted intervals that the longest one allows with room to plan."""
    return [aki for aki in config.intervals if aki <= 0.8 * reach] or [reach / 2]


def _facts(
    config: TrainPlannerConfig,
    tables: Sequence[EpisodeTable],
    digest: str,
    found: CrossFit,
    reach: int,
) -> PlannerFacts:
    shared = {name: value for name, value in tables[0].fingerprint.items() if name not in MAY_DIFFER}
    return PlannerFacts(
        feature_names=LOOKAHEAD_FEATURES,
        stride=config.stride,
        window=min(config.window, 2 * reach),
        reach=reach,
        fingerprint=shared,
        tables=digest,
        strength=found.strength,
    )


def _digest(tables: Sequence[EpisodeTable]) -> str:
    total = hashlib.sha256()
    for table in sorted(tables, key=lambda t: (t.clip, t.segment)):
        total.update(hashlib.sha256(encode_table(table)).digest())
    return total.hexdigest()
