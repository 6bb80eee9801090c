"""Find a plug-in by its short name or by `package.module:Class`.

A registry is a table from short names to classes (or factories), or to where one is, which is imported when
it is asked for. Every lookup either returns something
callable or fails with a message that names what was asked for and the nearest known name.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class UnknownNameError(ValueError):
    """A plug-in name that no registry knows; the message suggests the nearest one."""

    exit_code = 2


class PluginError(UnknownNameError):
    """A plug-in that cannot be built, or gives something else than its protocol says."""


class Registry:
    """Short names of one kind of plug-in.

    `kind` is the word used in messages ("scheduler", "propagator", "flow estimator").
    """

    def __init__(self, kind: str, entries: Mapping[str, Callable[..., Any] | str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def register(self, name: str, factory: Callable[..., Any]) -> None:
        """Add `factory` under `name`. Raises ValueError when the name is taken or holds a colon."""
        if ":" in name or name in self._entries:
            raise ValueError(f"{self.kind} name {name!r} is taken or holds a colon")
        self._entries[name] = factory

    def find(self, name: str) -> Callable[..., Any]:
        """The class or factory called `name`, a short name or `package.module:Class`."""
        entry = self._entries.get(name)
        if entry is not None:
            return load(entry) if isinstance(entry, str) else entry
        if ":" in name:
            return self._load(name)
        near = difflib.get_close_matches(name, self._entries, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownNameError(f"unknown {self.kind} {name!r}{hint} (known: {', '.join(self)})")

    def takes(self, name: str, option: str) -> bool:
        """Does `find(name)` take an option of this name?"""
        known = _option_names(self.find(name))
        return known is None or option in known

    def build(self, name: str, **options: Any) -> Any:
        """Call `find(name)` with the options; an option it does not take is an error that names it."""
        factory = self.find(name)
        known = _option_names(factory)
        for option in options:
            if known is None or option in known:
                continue
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            takes = ", ".join(sorted(known)) or "no options"
            raise UnknownNameError(f"{self.kind} {name!r} has no option {option!r}{hint} (takes: {takes})")
        if name in self._entries:
            return factory(**options)
        try:
            return factory(**options)
        except ValueError:
            raise
        except (Exception, SystemExit) as error:  # a plug-in's own code runs here
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise PluginError(f"{self.kind} {name!r} cannot be built ({problem})") from error

    def _load(self, name: str) -> Callable[..., Any]:
        try:
            return load(name)
        except (Exception, SystemExit) as error:  # a plug-in's own code runs here
            problem = f"{type(error).__name__}: {error}"
            raise UnknownNameError(f"{self.kind} {name!r} cannot be loaded ({problem})") from error


def load(place: str) -> Callable[..., Any]:
    """The object at `package.module:name`."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _option_names(factory: Callable[..., Any]) -> set[str] | None:
    """The keyword names that `factory` takes; None when it takes any or cannot be inspected."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
