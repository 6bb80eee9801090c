"""``vidseg train-planner`` from the configuration to the exit code."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import cv2

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.schema import to_dict
from vidseg_core.config.train_planner import TrainPlannerConfig
from vidseg_core.config.words import count
from vidseg_core.episodes.store import encode_table, load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.kit.progress import Reporter
from vidseg_core.models.planner import RULES, PlannerFacts, PricePoint, planner_bytes
from vidseg_core.scheduling.plan_features import PLAN_FEATURES
from vidseg_core.store.atomic import write_whole
from vidseg_core.training.claim import claim_folder, fingerprint
from vidseg_core.training.planner_fit import CrossFit, Lesson, check_table, cross_fit, lesson_of
from vidseg_core.training.planner_points import operating_points

PLANNER, RUN = "planner.safetensors", "run.json"
MAY_DIFFER = ("class_names",)
"""Between sets that are learned from together, besides their own classes nothing may differ."""


def run_train_planner(config: TrainPlannerConfig, reporter: Reporter | None = None) -> int:
    """Train as `config` says; the exit code. What is wrong is raised, each in one sentence."""
    report, folder = reporter or Reporter(config.log), Path(config.output)
    cv2.setNumThreads(1)
    tables = open_sets(config.tables)
    frames = sum(table.frames for table in tables)
    clips = len({table.clip for table in tables})
    report.say(f"planner; {count(clips, 'clip')}, {count(frames, 'frame')}, {len(PLAN_FEATURES)} features")
    for table in tables:
        check_table(table, config.stride)
    reach = min(config.window, *(table.horizon for table in tables))
    beyond = [f"{aki:g}" for aki in config.intervals if aki > reach]
    if beyond:
        report.say(f"no price is sought for intervals of {', '.join(beyond)}: the longest is {reach} frames")
    if config.dry_run:
        report.say("the tables are fine; nothing was trained (--dry_run)")
        return 0
    digest = _digest(tables)
    fields = config.fingerprint_fields() | {"tables": digest, "rules": RULES}
    claim_folder(folder, fields)
    if (folder / RUN).is_file():
        report.say(f"{folder} is complete already; nothing to do")
        return 0
    started = time.monotonic()
    lessons = _lessons(tables, config, reach, report)
    found = cross_fit(
        lessons, folds=config.folds, intervals=_learnable(config, reach), strengths=config.strengths
    )
    report.say(f"ridge penalty {found.strength:g}; clips left out plan {found.scores[found.strength]:.4f}")
    facts = _facts(config, tables, digest, found, reach)
    points = operating_points(
        found.fold_models, lessons, facts, config.intervals, lambda point: report.say(describe(point))
    )
    facts = replace(facts, operating_points=points)
    write_whole(folder / PLANNER, planner_bytes(found.model, facts))
    _finish(config, folder, fields, found, points, time.monotonic() - started, report)
    return 0


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
        feature_names=PLAN_FEATURES,
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


def _finish(
    config: TrainPlannerConfig,
    folder: Path,
    fields: Mapping[str, object],
    found: CrossFit,
    points: Sequence[PricePoint],
    seconds: float,
    report: Reporter,
) -> None:
    said = [asdict(point) for point in points]
    facts = {
        "verb": "train-planner",
        "config": to_dict(config),
        "fingerprint": fingerprint(fields),
        "strength": found.strength,
        "scores": {f"{strength:g}": score for strength, score in found.scores.items()},
        "seconds": round(seconds, 3),
        "operating_points": said,
        "finished_unix_s": round(time.time(), 3),
    }
    write_whole(folder / RUN, (json.dumps(facts, indent=1) + "\n").encode())
    report.say(
        f"done in {seconds:.0f} s; use it with --scheduler.name planner "
        f"--scheduler.policy {folder / PLANNER}",
        operating_points=said,
    )
