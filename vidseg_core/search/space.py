"""From typed search spaces to Optuna and back.

Model: Optuna first draws one of the spaces, then that space's parameters; names are `<space>:<option>`, so
spaces do not learn from each other's values. Choices go by their place, since Optuna knows plain values only.
Invariant: `decode(encode(point)) == point`, and a point that was decoded is a valid configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidseg_core.config.catalogue import SCHEDULERS
from vidseg_core.config.errors import ConfigError, nearest
from vidseg_core.config.schema import from_dict
from vidseg_core.config.segment import SchedulerConfig
from vidseg_core.config.spaces import Parameter, Space, load_spaces, nested

SPACE = "space"
ON_TABLES = tuple(name for name, entry in SCHEDULERS.items() if entry.feature and not entry.trained_by)
"""Schedulers without a file whose keys can be walked on tables."""


@dataclass(frozen=True)
class Definition:
    """What Optuna calls with a trial; small and picklable, as the search's state is written to disk."""

    spaces: tuple[Space, ...]

    def __call__(self, trial: Any) -> None:
        names = [space.name for space in self.spaces]
        name = trial.suggest_categorical(SPACE, names) if len(names) > 1 else names[0]
        space = next(space for space in self.spaces if space.name == name)
        for item in space.parameters:
            _suggest(trial, f"{space.name}:{item.option}", item)

    def decode(self, drawn: Mapping[str, Any]) -> tuple[Space, dict[str, Any]]:
        """The space and the point (dotted option -> value, fixed ones included) of what Optuna drew."""
        name = drawn.get(SPACE, self.spaces[0].name)
        space = next(space for space in self.spaces if space.name == name)
        point = dict(space.fixed)
        for item in space.parameters:
            value = drawn[f"{space.name}:{item.option}"]
            point[item.option] = item.choices[value] if item.kind == "choice" else value
        return space, point


def _suggest(trial: Any, name: str, item: Parameter) -> None:
    if item.kind == "choice":
        trial.suggest_categorical(name, list(range(len(item.choices))))
    elif item.kind == "int":
        trial.suggest_int(name, int(item.low), int(item.high), log=item.log)
    else:
        trial.suggest_float(name, item.low, item.high, log=item.log)


def open_spaces(path: str, names: tuple[str, ...]) -> Definition:
    """The spaces of a file (those that are named), all of which can be searched on tables.

    `ConfigError` says which is not there or cannot be searched.
    """
    try:
        known = load_spaces(path)
    except ConfigError as error:
        raise ConfigError(error.option.replace("--config", "--space"), error.problem) from error
    for name in names:
        if name not in known:
            raise ConfigError("--spaces", f"{path} holds no space {name!r}{nearest(name, known)}")
    chosen = tuple(space for name, space in known.items() if not names or name in names)
    for space in chosen:
        if space.verb == "segment":
            _check_scheduler(space, path)
    return Definition(chosen)


def _check_scheduler(space: Space, path: str) -> None:
    where = f"{path}: {space.name}"
    options = {*space.fixed, *(item.option for item in space.parameters)}
    other = sorted(option for option in options if not option.startswith("scheduler."))
    if other:
        problem = "is decided by the tables; of segment, tune can vary scheduler.* only"
        raise ConfigError(f"{where}: {other[0]}", problem)
    names = [item.choices for item in space.parameters if item.option == "scheduler.name"]
    for name in [*(choice for choices in names for choice in choices), space.fixed.get("scheduler.name")]:
        if name is not None and name not in ON_TABLES:
            problem = f"{name!r} cannot be walked on tables; these can: {', '.join(ON_TABLES)}"
            raise ConfigError(f"{where}: scheduler.name", problem)


def scheduler_of(point: Mapping[str, Any]) -> SchedulerConfig:
    """The scheduler of a point of a space of `segment`."""
    return from_dict(SchedulerConfig, nested(dict(point)).get("scheduler", {}))
