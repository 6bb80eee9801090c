"""Search spaces as data: which options a search may vary, within which bounds, and what stays fixed.

A file holds several named spaces::

    warp_error:
      fixed: {scheduler.name: warp_error}
      vary:
        scheduler.threshold: {float: [0.5, 24], scale: log}
        propagation.sides: {choice: [one, two]}
    light:
      verb: train-policy
      vary:
        episode.eta: {float: [0.03, 0.2], scale: log}
        tau: {float: [0.05, 0.95]}

Invariant: a space that was loaded names only options of its verb (`segment`, or `train-policy` with `tau`,
see `PolicyTrial`), and each of its bounds and choices, taken with what is fixed, is a valid
configuration; so a search cannot fail on a value half-way.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vidseg_core.config.errors import ConfigError, check, check_int, nearest
from vidseg_core.config.recipes import EpisodeRecipe, ReinforceRecipe
from vidseg_core.config.schema import flatten, from_dict, load_yaml, option_types
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.config.train_policy import check_episode, check_kind, check_range, check_reinforce

__all__ = ["Parameter", "PolicyTrial", "Space", "load_spaces", "nested", "space_file"]

PACKAGED = Path(__file__).parents[1] / "spaces"
"""Files that `--space` may name; in a checkout this is tune_spaces/ at the top."""


@dataclass(frozen=True, kw_only=True)
class PolicyTrial:
    """What a search may set of a policy that is trained and then used at one threshold: options of
    ``vidseg train-policy`` and ``tau``."""

    tau: float = 0.5
    """a frame is key where the policy wants one with more than this probability; 0 to 1"""
    policy: Literal["light", "dvrl", "paced"] = "light"
    """as --policy of train-policy"""
    features: tuple[str, ...] = ()
    """as --features of train-policy"""
    seed: int = 0
    """as --seed of train-policy"""
    episode: EpisodeRecipe = field(default_factory=EpisodeRecipe)
    reinforce: ReinforceRecipe = field(default_factory=ReinforceRecipe)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        check_range("--tau", self.tau, 0.0, 1.0)
        check_kind(self.policy, self.episode)
        check_int("--seed", self.seed, 0, 2**63 - 1)
        check_episode(self.episode)
        check_reinforce(self.reinforce)


_KEYS = ("verb", "fixed", "vary")
_KINDS = ("int", "float", "choice")
VERBS: dict[str, type] = {"segment": SegmentConfig, "train-policy": PolicyTrial}
_PLACES = ("input", "output", "weights", "ray_address", "dry_run", "limit", "log", "budget", "max_drop")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One option that varies: `kind` is int or float with `low <= value <= high`, or choice of `choices`."""

    option: str
    kind: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def edges(self) -> tuple[Any, ...]:
        """The values that decide whether the whole range is allowed."""
        return self.choices if self.kind == "choice" else (self._number(self.low), self._number(self.high))

    def sample(self, rng: random.Random) -> Any:
        """A value drawn uniformly (on a log scale where `log`)."""
        if self.kind == "choice":
            return rng.choice(self.choices)
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            drawn = rng.uniform(self.low, self.high)
        return self._number(min(max(drawn, self.low), self.high))

    def _number(self, value: float) -> int | float:
        return round(value) if self.kind == "int" else float(value)


@dataclass(frozen=True, kw_only=True)
class Space:
    """A named space: options that are `fixed` (dotted name -> value) and the `parameters` that vary."""

    name: str
    fixed: dict[str, Any]
    parameters: tuple[Parameter, ...]
    verb: str = "segment"
    """Whose options these are: segment or train-policy."""

    def sample(self, rng: random.Random) -> dict[str, Any]:
        """One point: dotted option name -> value, fixed options included."""
        return {**self.fixed, **{item.option: item.sample(rng) for item in self.parameters}}

    def config(self, point: dict[str, Any], *, input: tuple[str, ...], output: str) -> SegmentConfig:
        """The configuration of one point of a space of `segment`."""
        needed = {"input": list(input), "output": output, "segmenter": "constant"}
        return from_dict(SegmentConfig, {**needed, **nested(point)})

    def trial(self, point: dict[str, Any]) -> PolicyTrial:
        """The policy of one point of a space of `train-policy`."""
        return from_dict(PolicyTrial, nested(point))


def nested(point: dict[str, Any]) -> dict[str, Any]:
    """``{"scheduler.interval": 12}`` -> ``{"scheduler": {"interval": 12}}``."""
    tree: dict[str, Any] = {}
    for dotted, value in point.items():
        *path, last = dotted.split(".")
        branch = tree
        for key in path:
            branch = branch.setdefault(key, {})
        branch[last] = value
    return tree


def space_file(given: str | Path) -> Path:
    """The file that `given` means: a path as it stands, or the name of a file that is in the package."""
    path, known = Path(given), sorted(file.stem for file in PACKAGED.glob("*.yaml"))
    if path.suffix or len(path.parts) != 1 or path.exists():
        return path
    problem = f"there is no file {path}{nearest(str(path), known)}; in the package: {', '.join(known)}"
    check(path.name in known, "--space", problem)
    return PACKAGED / f"{path}.yaml"


def load_spaces(given: str | Path) -> dict[str, Space]:
    """The spaces in a file, by name. `ConfigError` names file, space and option of what is wrong."""
    spaces, path = {}, space_file(given)
    for name, content in load_yaml(path).items():
        try:
            spaces[name] = _space(str(name), content)
        except ConfigError as error:
            raise ConfigError(f"{path}: {name}: {error.option.lstrip('-')}", error.problem) from error
    check(bool(spaces), str(path), "holds no space")
    return spaces


def _space(name: str, content: Any) -> Space:
    fine = isinstance(content, dict) and isinstance(content.get("vary"), dict) and bool(content["vary"])
    check(fine, "vary", "must map options to their ranges, with at least one")
    for key in content:
        check(key in _KEYS, str(key), f"no such key{nearest(str(key), _KEYS)}")
    verb = content.get("verb", "segment")
    check(verb in VERBS, "verb", f"must be one of {', '.join(VERBS)}, got {verb!r}")
    fixed = flatten(content.get("fixed") or {})
    parameters = tuple(_parameter(str(option), text, verb) for option, text in content["vary"].items())
    for option in fixed:
        _check_option(option, verb)
    space = Space(name=name, fixed=fixed, parameters=parameters, verb=verb)
    _check_edges(space)
    return space


def _check_option(option: str, verb: str) -> None:
    known = [known for known in option_types(VERBS[verb]) if known not in _PLACES]
    what = f"is not an option of {verb} that a search can set"
    check(option in known, option, f"{what}{nearest(option, known)}")


def _parameter(option: str, text: Any, verb: str) -> Parameter:
    _check_option(option, verb)
    check(
        isinstance(text, dict), option, "must be {int: [low, high]}, {float: [low, high]} or {choice: [...]}"
    )
    kinds = [kind for kind in _KINDS if kind in text]
    check(len(kinds) == 1, option, f"must have one of {', '.join(_KINDS)}")
    kind = kinds[0]
    for key in text:
        check(key in (kind, "scale"), option, f"has an unknown key {key!r}")
    values, scale = text[kind], text.get("scale", "linear")
    check(isinstance(values, list) and len(values) >= 1, option, f"{kind} must be a list")
    check(scale in ("linear", "log"), option, f"scale must be linear or log, got {scale!r}")
    if kind == "choice":
        check("scale" not in text, option, "a choice has no scale")
        return Parameter(option=option, kind=kind, choices=tuple(values))
    allowed = int if kind == "int" else (int, float)
    numbers = len(values) == 2 and all(isinstance(v, allowed) and not isinstance(v, bool) for v in values)
    check(
        numbers and values[0] < values[1], option, f"{kind} must be [low, high] with low < high, got {values}"
    )
    check(scale == "linear" or values[0] > 0, option, "a log scale begins above 0")
    return Parameter(option=option, kind=kind, low=values[0], high=values[1], log=scale == "log")


def _check_edges(space: Space) -> None:
    """Every edge of every parameter, the others at their first edge and at their last, must be a valid
    configuration."""
    for end in (0, -1):
        base = {**space.fixed, **{item.option: item.edges()[end] for item in space.parameters}}
        for item in space.parameters:
            for value in item.edges():
                point = {**base, item.option: value}
                if space.verb == "segment":
                    space.config(point, input=("-",), output="-")
                else:
                    space.trial(point)
