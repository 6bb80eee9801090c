"""Command line -> config: ``--config FILE.yaml`` gives a draft, the options given correct it.

Invariant: the command line and the file accept the same names and the same values, because both are read
against the same dataclass; an option given on the command line replaces the file's value (also for
repeatable options). Words that no option takes are values of the option that the dataclass calls `FIRST`.
Anything wrong ends in `SystemExit(2)` after a message on standard error.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import tyro

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.help import render_help
from vidseg_core.config.schema import blame, choices, flatten, load_yaml, option_types, unchecked

__all__ = ["EXIT_FAILED", "EXIT_OK", "EXIT_QUARANTINED", "EXIT_USAGE", "parse", "take_option"]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_QUARANTINED = 3

ConfigT = TypeVar("ConfigT")


def parse(verb: str, cls: type[ConfigT], argv: Sequence[str]) -> ConfigT:
    """The config of ``vidseg VERB ARGV``; `SystemExit` (0 after ``--help``, 2 after bad usage) otherwise."""
    arguments = [_at_home(word) for word in argv]
    if "-h" in arguments or "--help" in arguments:
        print(render_help(verb, cls, shutil.get_terminal_size().columns), end="")
        raise SystemExit(EXIT_OK)
    try:
        files, arguments = take_option(arguments, "config")
        values = _in_file(files)
        draft = _draft(cls, values, files)
        arguments = _gather_repeated(cls, _name_first(cls, _switched(cls, arguments)))
        _check_choices(cls, draft, arguments)
        _check_numbers(cls, arguments)
    except ConfigError as error:
        print(f"vidseg {verb}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from None
    with contextlib.redirect_stdout(sys.stderr):
        config = tyro.cli(cls, prog=f"vidseg {verb}", args=arguments, default=draft, use_underscores=True)
    given = {_option_name(token) for token in arguments} | set(flatten(values))
    as_typed = getattr(config, "as_typed", None)
    try:
        return as_typed(given) if as_typed is not None else config
    except ConfigError as error:
        print(f"vidseg {verb}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from None


def _at_home(word: str) -> str:
    """``--output=~/x`` as shells leave it -> what they make of ``--output ~/x``."""
    option, given, value = word.partition("=")
    at_home = option.startswith("--") and value.startswith("~")
    return f"{option}{given}{os.path.expanduser(value)}" if at_home else word


def _in_file(files: list[str]) -> dict[str, Any]:
    if len(files) > 1:
        raise ConfigError("--config", f"takes one file, got {len(files)}: {', '.join(files)}")
    return _home_spelled(load_yaml(files[0])) if files else {}


def _home_spelled(value: Any) -> Any:
    """`~/x` anywhere in a file's values -> what shells make of it on the command line."""
    if isinstance(value, dict):
        return {name: _home_spelled(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_home_spelled(one) for one in value]
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def _draft(cls: type[ConfigT], values: dict[str, Any], files: list[str]) -> ConfigT:
    with blame(f"--config {files[0]}" if files else ""):
        return unchecked(cls, values, missing=tyro.MISSING)


def _check_choices(cls: type, draft: object, arguments: Sequence[str]) -> None:
    """`ConfigError` with what there is to choose for an option of `CHOICES` that is not given."""
    given = {_option_name(token) for token in arguments}
    for name, choice in choices(cls).items():
        if name not in given and getattr(draft, name) is tyro.MISSING:
            raise ConfigError(f"--{name}", choice)


def _check_numbers(cls: type, arguments: Sequence[str]) -> None:
    """`ConfigError` for a value that is no number where the option wants one."""
    hints, name = option_types(cls), ""
    for token in arguments:
        name = _option_name(token) or name
        value = token if not token.startswith("--") else token.partition("=")[2]
        kinds = (hints.get(name), *typing.get_args(hints.get(name)))
        whole = int in kinds
        if not value or not (whole or float in kinds) or (value == "None" and type(None) in kinds):
            continue
        try:
            int(value) if whole else float(value)
        except ValueError:
            wanted = "a whole number" if whole else "a number"
            raise ConfigError(f"--{name}", f"must be {wanted}, got {value!r}") from None


def _option_name(token: str) -> str:
    """``--dry-run=x`` -> ``dry_run``; the empty string for what is not an option."""
    return token[2:].partition("=")[0].replace("-", "_") if token.startswith("--") else ""


def take_option(arguments: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """The values given to the one-value option `name`, and the arguments without it."""
    taken: list[str] = []
    rest: list[str] = []
    tokens = iter(arguments)
    for token in tokens:
        if _option_name(token) != name:
            rest.append(token)
            continue
        value = token.partition("=")[2] if "=" in token else next(tokens, "")
        if not value:
            raise ConfigError(f"--{name}", "needs a file name")
        taken.append(value)
    return taken, rest


def _switched(cls: type, arguments: Sequence[str]) -> list[str]:
    """``--propagation.self_check false`` -> ``--propagation.no_self_check``: a file says true and false, too;
    as a word of its own it would be taken for an input."""
    hints, words = option_types(cls), list[str]()
    for token in arguments:
        option, value = (token, "") if "=" not in token else token.split("=", 1)
        if token.lower() in ("true", "false") and words and "=" not in words[-1]:
            option, value = words[-1], token
        name = _option_name(option)
        if value.lower() not in ("true", "false") or hints.get(name) is not bool:
            words.append(token)
            continue
        if option is not token and words and words[-1] is option:
            words.pop()
        group, dot, last = name.rpartition(".")
        words.append(f"--{name}" if value.lower() == "true" else f"--{group}{dot}no_{last}")
    return words


def _name_first(cls: type, arguments: Sequence[str]) -> list[str]:
    """``VIDEO --output out`` -> ``--input VIDEO --output out``, wherever the word stands."""
    first: str | None = getattr(cls, "FIRST", None)
    hints, named, room = option_types(cls), list[str](), 0.0
    for token in arguments:
        if name := _option_name(token):
            room = 0.0 if "=" in token else _most_values(hints, name)
        elif room:
            room -= 1
        elif first and not token.startswith("-"):
            named.append(f"--{first}")
        named.append(token)
    return named


def _most_values(hints: Mapping[str, Any], name: str) -> float:
    """How many words after an option are its values."""
    group, dot, last = name.rpartition(".")
    hint = hints.get(name, hints.get(f"{group}{dot}{last.removeprefix('no_')}"))
    return 0 if hint is bool else math.inf if hint is None or typing.get_origin(hint) is tuple else 1


def _gather_repeated(cls: type, arguments: list[str]) -> list[str]:
    """``--input a --input b c`` -> ``--input a b c`` for every option of `cls` that takes several values."""
    several = {name for name, hint in option_types(cls).items() if typing.get_origin(hint) is tuple}
    values: dict[str, list[str]] = {}
    rest: list[str] = []
    current: list[str] = rest
    for token in arguments:
        name = _option_name(token)
        if name in several:
            current = values.setdefault(name, [])
            current += [token.partition("=")[2]] if "=" in token else []
        elif name:
            current = rest
            rest.append(token)
        else:
            current.append(token)
    return [*rest, *(token for name, found in values.items() for token in (f"--{name}", *found))]
