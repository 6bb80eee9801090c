"""Methods as a person types them: ``warp_error:threshold=4,8,sides=one``.

    METHOD   := SCHEDULER [":" OPTION "=" VALUE {"," VALUE} {"," OPTION "=" ...}]
    OPTION   := an option of --scheduler (interval, threshold, policy, max_interval, ...), one of
                --propagation (level, sides, flow, flow_weights, flow_size, weights, latency, delay, clock,
                self_check, adapt_steps; its name as ``propagation``), ``regions``, ``overlap``, ``align``
                and ``context`` (as --regions.grid and so on), or ``label``, which tables and plots show

Several values make several methods, every combination of them. SCHEDULER may be ``package.module:Class``,
and ``oracle``: the best schedule there is with a key every ``interval`` frames, from episode tables. Options
that are not given are those of the run's own ``--propagation`` and of the scheduler.

Invariant: a parsed method has passed the same checks as ``vidseg segment`` with these options.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, get_type_hints

from vidseg_core.config.catalogue import (
    FIXED,
    SCHEDULERS,
    no_interval,
    propagator_edition,
    scheduler_edition,
)
from vidseg_core.config.errors import ConfigError, nearest
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.config.schema import convert, to_dict
from vidseg_core.config.segment import PropagationConfig, SchedulerConfig

__all__ = ["ORACLE", "MethodConfig", "parse_methods"]

ORACLE = "oracle"
_SWEPT = ("interval", "threshold")
_RENAMED = {"propagation": "name"}
_REGIONS = {"regions": "grid", "overlap": "overlap", "align": "align", "context": "context"}
"""Options of `RegionsConfig`, by what they are called here."""
_OF_CROPS = {name: type(getattr(RegionsConfig, name)) for name in _REGIONS.values() if name != "grid"}
"""Those that whole frames have not, with their types."""


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """One scheduler with one value for each of its options, and how results reach the frames between."""

    label: str
    """Family: methods of one label are points of one curve."""
    scheduler: SchedulerConfig
    """An oracle has the scheduler ``fixed``, whose interval is its budget."""
    propagation: PropagationConfig
    regions: RegionsConfig = RegionsConfig()
    is_oracle: bool = False
    interval_typed: bool = False
    """The interval is not just the usual one: a plug-in has to take it."""

    @property
    def name(self) -> str:
        """Label and operating point, for people."""
        point = self.point
        return f"{self.label} {point}" if point else self.label

    @property
    def point(self) -> str:
        """``interval=12`` or ``threshold=6``; empty if the scheduler has neither."""
        for option in _SWEPT:
            if (value := self.value(option)) is not None:
                return f"{option}={value:g}"
        return ""

    def value(self, option: str) -> float | None:
        """The interval or the threshold, where the scheduler has one."""
        if option == "interval":
            return float(self.scheduler.interval) if _takes_interval(self) else None
        return self.scheduler.threshold

    @property
    def digest(self) -> str:
        """Ten hex digits over every option; the label plays no part."""
        propagation = to_dict(self.propagation)
        propagation["name"] = propagator_edition(
            self.propagation.name,
            checks_itself=self.propagation.checks_itself,
            adapts=bool(self.propagation.adapt_steps),
        )
        if propagation["weights"] is None:  # as before there were any
            del propagation["weights"]
        if propagation["latency"] == "full":
            del propagation["latency"], propagation["delay"]
        if not self.propagation.checks_itself:
            del propagation["self_check"], propagation["adapt_steps"]
        if propagation["clock"] == 1:
            del propagation["clock"]
        scheduler = to_dict(self.scheduler) | {"name": scheduler_edition(self.scheduler.name)}
        values = {"scheduler": scheduler, "propagation": propagation}
        if self.regions.on:
            values["regions"] = to_dict(self.regions)
            for option, off in (("align", 1), ("context", "none")):  # as before there were others
                if values["regions"][option] == off:
                    del values["regions"][option]
        text = json.dumps(values | {"oracle": self.is_oracle}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def _takes_interval(method: MethodConfig) -> bool:
    entry = SCHEDULERS.get(method.scheduler.name)
    return method.is_oracle or (entry is not None and entry.takes_interval)


def parse_methods(texts: Sequence[str], propagation: PropagationConfig) -> tuple[MethodConfig, ...]:
    """All methods that the texts name, in order; `ConfigError` for what is unknown, wrong or given twice."""
    found: list[MethodConfig] = []
    for text in texts:
        found += _parse(text, propagation)
    seen: dict[str, str] = {}
    for method in found:
        if method.digest in seen:
            raise ConfigError("--methods", f"{seen[method.digest]!r} is there twice (also {method.name!r})")
        seen[method.digest] = method.name
    return tuple(found)


def _parse(text: str, propagation: PropagationConfig) -> Iterable[MethodConfig]:
    name, options = _split(text)
    scheduler_options, propagation_options = _known_options()
    for option in _REGIONS:
        if option in options and "regions" not in options:
            raise _error(text, f"{option} goes with regions, such as regions=2x2")
    types = {"label": str, "regions": str} | _OF_CROPS | scheduler_options | propagation_options
    values: dict[str, list[Any]] = {}
    for option, given in options.items():
        if option not in (known := [*scheduler_options, *propagation_options, *_REGIONS, "label"]):
            raise _error(text, f"no option {option!r}{nearest(option, known)}; known: {', '.join(known)}")
        values[option] = [_value(text, option, types[option], one) for one in given]
    frames: set[str] = set()
    """Methods of whole frames, which have no crops: several overlaps of those make one method."""
    for combination in product(*values.values()):
        chosen = dict(zip(values, combination, strict=True))
        method = _method(text, name, chosen, propagation)
        if not method.regions.on and not values.keys().isdisjoint(_OF_CROPS):
            if method.digest in frames:
                continue
            frames.add(method.digest)
        yield method


def _method(text: str, name: str, chosen: dict[str, Any], propagation: PropagationConfig) -> MethodConfig:
    label = chosen.pop("label", None)
    scheduler_options, _ = _known_options()
    mine = {option: value for option, value in chosen.items() if option in scheduler_options}
    cut = {_REGIONS[option]: chosen.pop(option) for option in _REGIONS if option in chosen}
    others = {_RENAMED.get(option, option): v for option, v in chosen.items() if option not in mine}
    is_oracle = name == ORACLE
    if "interval" in mine and not is_oracle and (problem := no_interval(name)):
        raise _error(text, f"interval {problem}")
    if "interval" in mine and "max_interval" not in mine:
        mine["max_interval"] = max(SchedulerConfig.max_interval, mine["interval"])
    try:
        scheduler = SchedulerConfig(name=FIXED if is_oracle else name, **mine)
        carried = replace(propagation, **others)
        regions = RegionsConfig(**cut)
    except ConfigError as error:
        option = error.option.rpartition(".")[2]
        raise _error(text, error.problem if option == "name" else f"{option} {error.problem}") from error
    if is_oracle and "threshold" in mine:
        raise _error(text, "an oracle has an interval, no threshold")
    extras = [
        _worded(option, str(value))
        for option, value in others.items()
        if option not in ("flow_weights", "weights")
    ]
    extras += [regions.words()] if regions.on else []
    shown = label if label is not None else " ".join([name, *extras])
    return MethodConfig(
        label=shown,
        scheduler=scheduler,
        propagation=carried,
        regions=regions,
        is_oracle=is_oracle,
        interval_typed="interval" in mine,
    )


def _worded(option: str, value: str) -> str:
    if option == "self_check":
        return "with self-check" if value == "True" else "without self-check"
    if option in ("latency", "delay", "clock", "adapt_steps"):
        return f"{value} latency" if option == "latency" else f"{option} {value}"
    return {"one": "one-sided", "two": "two-sided"}.get(value, value)


def _known_options() -> tuple[dict[str, Any], dict[str, Any]]:
    """Option -> type, of the scheduler and of the propagation."""
    scheduler, propagation = get_type_hints(SchedulerConfig), get_type_hints(PropagationConfig)
    mine = {item.name: scheduler[item.name] for item in fields(SchedulerConfig) if item.name != "name"}
    others = {item.name: propagation[item.name] for item in fields(PropagationConfig) if item.name != "name"}
    return mine, others | {"propagation": str}


def _split(text: str) -> tuple[str, dict[str, list[str]]]:
    """Scheduler and the values of each option, as typed."""
    name, colon, rest = text.strip().partition(":")
    if colon and name not in (*SCHEDULERS, ORACLE) and re.match(r"[A-Za-z_]\w*(:|$)", rest):
        cls, colon, rest = rest.partition(":")
        name = f"{name}:{cls}"
    if not name:
        raise _error(text, "names no scheduler")
    options: dict[str, list[str]] = {}
    current: list[str] | None = None
    for part in rest.split(",") if rest else []:
        option, equals, value = part.strip().partition("=")
        if equals:
            if option in options:
                raise _error(text, f"option {option!r} is there twice")
            current = options.setdefault(option, [value])
        elif current is None:
            raise _error(text, f"expected OPTION=VALUE after the colon, got {part!r}")
        else:
            current.append(option)
    return name, options


def _value(text: str, option: str, hint: Any, typed: str) -> Any:
    value: Any = {"true": True, "false": False}.get(typed.lower(), typed) if hint is bool else typed
    for kind in () if hint is bool else (int, float):
        try:
            value = kind(typed)
            break
        except ValueError:
            continue
    try:
        return convert(hint, value, option)
    except ConfigError as error:
        raise _error(text, f"{option} {error.problem}") from error


def _error(text: str, problem: str) -> ConfigError:
    return ConfigError("--methods", f"{text!r}: {problem}")
