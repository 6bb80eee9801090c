"""The one error of the configuration layer, and the checks that raise it.

Invariant: a message begins with the option as a person types it (``--scheduler.interval``), says what is
allowed and what was given, and offers the nearest known name where there is one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

__all__ = ["ConfigError", "check", "check_int", "check_name", "check_positive", "nearest"]

_PLUGIN = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")


class ConfigError(ValueError):
    """A value that the configuration does not allow.

    Attributes: ``option`` (as typed, with its dashes) and ``problem`` (what is wrong, in words).
    """

    exit_code = 2

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str]]:
        return (type(self), (self.option, self.problem))


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest of `known`, or the empty string when nothing is close."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""


def check(ok: bool, option: str, problem: str) -> None:
    """Raise `ConfigError` for `option` unless `ok`."""
    if not ok:
        raise ConfigError(option, problem)


def check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """`ConfigError` unless `value` is one of these."""
    check(value in allowed, option, f"must be one of {', '.join(allowed)}, got {value!r}")


def check_int(option: str, value: object, low: int, high: int | None = None, unit: str = "") -> None:
    """`value` must be an int in ``[low, high]``; `unit` is named in the message."""
    allowed = f"at least {low}" if high is None else f"between {low} and {high}"
    fine = isinstance(value, int) and not isinstance(value, bool)
    fine = fine and low <= value and (high is None or value <= high)  # type: ignore[operator]
    check(fine, option, f"must be a whole number {allowed}{' ' + unit if unit else ''}, got {value!r}")


def check_positive(option: str, value: object, unit: str = "") -> None:
    """`value` must be a finite number above zero."""
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
    check(fine, option, f"must be above 0{' ' + unit if unit else ''}, got {value!r}")


def check_name(option: str, value: str, known: Collection[str], prefixes: Sequence[str] = ()) -> None:
    """`value` must be one of `known`, ``<prefix>:<anything>``, or a plug-in ``package.module:Class``."""
    if value in known:
        return
    prefix, colon, rest = value.partition(":")
    if colon and rest and (prefix in prefixes or _PLUGIN.match(value)):
        return
    forms = [*known, *(f"{p}:..." for p in prefixes), "package.module:Class"]
    hint = nearest(prefix, [*known, *prefixes])
    raise ConfigError(option, f"unknown name {value!r}{hint}; known: {', '.join(forms)}")
