"""One trial: a point of a space becomes a quality and a key interval on the validation clips.

Model: a policy is trained by the loop of `train-policy` in this process, then walked over the validation
clips at its tau; a scheduler without a net is only walked. Invariant: a trial's outcome depends on the
point, the seed and the tables alone (unless it was stopped early, which depends on the others); one that
was interrupted goes on from its checkpoint, one that had ended only says again what it had found.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidseg_core.config.catalogue import SCHEDULERS
from vidseg_core.config.errors import ConfigError
from vidseg_core.config.spaces import PolicyTrial, Space
from vidseg_core.episodes.features import knows_maps, spelled_out
from vidseg_core.episodes.on_tables import scored
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.rollout import KeyRate
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.episodes.table_set import TableSet
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy_file import read_policy
from vidseg_core.models.policy_trunk import PolicyError
from vidseg_core.search.desk import visit
from vidseg_core.search.space import Definition, scheduler_of
from vidseg_core.store.atomic import make_folder, write_whole
from vidseg_core.store.small_files import NUMBER, json_object
from vidseg_core.training.attempt import Row, TrainingError
from vidseg_core.training.policy_job import features_read
from vidseg_core.training.policy_loop import BEST, POLICY, PolicyOptions, train_policy

OUTCOME = "outcome.json"
EXPLAINED = (EpisodeError, PolicyError, TrainingError, ConfigError)
COLLAPSED, PATIENCE = 0.003, 4
"""Entropy of a decision in nats under which a policy explores no more, and rows of the curve in a row."""
ROWS, CHECKS = 24, 8
"""Rows of a trial's curve, validations."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all trials of a search have in common; small, since it travels with each."""

    definition: Definition
    folder: str
    desk: str
    sides: str
    intervals: tuple[float, ...]
    episodes: int
    early_stop: bool
    threads: int
    seed: int
    decision: DecisionNet | None = None
    """What policies have inside."""


class Stopped(Exception):
    """A trial is ended early; says why."""


def run_trial(drawn: Mapping[str, Any], task: Task) -> None:
    """What Tune calls."""
    from ray import tune

    name = tune.get_context().get_trial_id()
    folder = Path(task.folder) / name
    outcome = read_outcome(folder)
    if outcome is None:
        torch.set_num_threads(task.threads)
        desk, tables, validation = visit(task.desk)
        started = time.monotonic()
        outcome = try_point(drawn, task, folder, tables, validation, _judge(desk, name))
        outcome |= {"trial": name, "seconds": round(time.monotonic() - started, 3)}
        make_folder(folder)
        write_whole(folder / OUTCOME, (json.dumps(outcome, indent=1) + "\n").encode())
        desk.tell.remote(name, outcome)
    tune.report({"quality": outcome["quality"], "aki": outcome["aki"]})


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """What a trial that ended has found."""
    try:
        data = (folder / OUTCOME).read_bytes()
    except FileNotFoundError:
        return None
    shape = {"quality!": NUMBER, "aki!": NUMBER, "trial!": str, "seconds!": NUMBER}
    return json_object(data, str(folder / OUTCOME), shape, "remove it, and the trial is made again")


Judge = Callable[[int, float], bool]
"""(batch, validation quality) -> does it fall behind?"""


def _judge(desk: Any, name: str) -> Judge:
    import ray

    return lambda batch, quality: bool(ray.get(desk.falls_behind.remote(name, batch, quality)))


def try_point(
    drawn: Mapping[str, Any],
    task: Task,
    folder: Path,
    tables: TableSet,
    validation: TableSet,
    behind: Judge | None = None,
) -> dict[str, Any]:
    """Space, options, quality and AKI on the validation clips; `error` where the point cannot be tried."""
    space, point = task.definition.decode(drawn)
    outcome: dict[str, Any] = {"space": space.name, "verb": space.verb, "options": point, "stopped": ""}
    try:
        if space.verb == "segment":
            found = _scheduler(point, task, validation)
        else:
            found = _policy(space, point, task, folder, tables, validation, behind)
    except EXPLAINED as problem:
        return outcome | {"quality": -1.0, "aki": 1.0, "batches": 0, "error": str(problem)}
    return outcome | {"error": ""} | found


def _scheduler(point: Mapping[str, Any], task: Task, validation: TableSet) -> dict[str, Any]:
    scheduler = scheduler_of(point)
    if SCHEDULERS[scheduler.name].takes_interval:
        threshold = scheduler.interval - 0.5
    else:
        threshold = scheduler.threshold
        if threshold is None:
            raise ConfigError("scheduler.threshold", f"must be in the space of {scheduler.name!r}")
    walked = scored(validation, scheduler.name)
    operator = _operator(task, walked.tables, min(scheduler.max_interval, validation.horizon))
    return _operate(operator, walked.key_rate, threshold) | {"batches": 0}


def _policy(
    space: Space,
    point: dict[str, Any],
    task: Task,
    folder: Path,
    tables: TableSet,
    validation: TableSet,
    behind: Judge | None,
) -> dict[str, Any]:
    trial = space.trial(point)
    if "reinforce.episodes" not in point:
        trial = replace(trial, reinforce=replace(trial.reinforce, episodes=task.episodes))
    if features := features_read(trial.features, task.decision):
        tables, validation = (only_features(each, features) for each in (tables, validation))
    options = _options(trial, task, folder, point)
    options.rules().check(tables)
    make_folder(folder)
    batches, stopped = options.batches, ""
    try:
        train_policy(tables, validation, options, watch=_watch(task, behind))
    except Stopped as reason:
        batches, stopped = reason.args[1], str(reason.args[0])
    file = POLICY if not stopped else BEST
    net, _ = read_policy(folder / file)
    operator = _operator(task, validation, trial.episode.max_interval, trial.episode.history)
    return _operate(operator, net.key_rate, trial.tau) | {"batches": batches, "stopped": stopped}


def _options(trial: PolicyTrial, task: Task, folder: Path, point: Mapping[str, Any]) -> PolicyOptions:
    batches = max(1, trial.reinforce.episodes // trial.reinforce.batch)
    told = json.dumps([sorted(point.items()), task.episodes, task.seed, list(task.intervals)], default=str)
    return PolicyOptions(
        folder=folder,
        kind=trial.policy,
        episode=trial.episode,
        reinforce=trial.reinforce,
        intervals=task.intervals,
        seed=trial.seed or task.seed,
        val_every=max(1, batches // CHECKS),
        save_every=max(1, batches // CHECKS),
        log_every=max(1, batches // ROWS),
        fingerprint=hashlib.sha256(told.encode()).hexdigest(),
        decision=task.decision,
    )


def _watch(task: Task, behind: Judge | None) -> Callable[[Row], None]:
    """Ends the trial by raising `Stopped`, right after a validation, so that its best policy is on disk."""
    low = 0

    def watch(row: Row) -> None:
        nonlocal low
        low = low + 1 if row["entropy"] < COLLAPSED else 0
        if not task.early_stop or row["val_quality"] is None:
            return
        if low >= PATIENCE:
            raise Stopped("entropy", row["batch"])
        if behind is not None and behind(row["batch"], row["val_quality"]):
            raise Stopped("median", row["batch"])

    return watch


def only_features(tables: TableSet, names: tuple[str, ...]) -> TableSet:
    """The set with these features only (a copy of their numbers); unknown ones are named."""
    names = spelled_out(names, tables.feature_names, maps=knows_maps(tables.fingerprint))
    unknown = [name for name in names if name not in tables.feature_names]
    if unknown:
        raise EpisodeError(
            f"the tables have no feature {unknown[0]!r}; they have {list(tables.feature_names)}"
        )
    columns = [tables.feature_names.index(name) for name in names]
    return replace(tables, deviation_RL1F=tables.deviation_RL1F[..., columns], feature_names=tuple(names))


def _operator(task: Task, validation: TableSet, max_interval: int | None, history: int = 90) -> Operator:
    sides: Any = task.sides
    return Operator(validation, max_interval=max_interval, history=history, sides=sides)


def _operate(operator: Operator, rate: KeyRate, threshold: float) -> dict[str, Any]:
    found = operator.operate(rate, np.array([threshold]))
    return {"quality": float(found.quality_P[0]), "aki": float(found.aki_P[0])}
