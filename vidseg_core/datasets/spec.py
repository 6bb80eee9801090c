"""What a person types for a data set: `NAME:PATH?option=value&option=value`.

Model: NAME is one of the layouts in `open`; without it the layout is guessed from what PATH holds. What
stands before `?` is the layout's business (for `scenes` it is not a path but settings); the options after it
are the same for every layout, except those that a layout lists as its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from vidseg_core.datasets.records import DatasetError

_OPTIONS = re.compile(r"^[^=&?]+=[^&]*(&[^=&?]+=[^&]*)*$")
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_-]+)(?::(.*))?$", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set's name, place and options, as typed."""

    name: str | None
    """Layout; None: to be guessed."""
    path: str
    options: Mapping[str, str] = field(default_factory=dict)

    def option(self, name: str, default: str = "") -> str:
        return self.options.get(name, default)

    def flag(self, name: str) -> bool:
        """A yes/no option; off if not given."""
        value = self.option(name, "no").lower()
        if value not in ("yes", "true", "1", "no", "false", "0"):
            raise DatasetError(f"option {name}={value} must be yes or no")
        return value in ("yes", "true", "1")

    def names(self, name: str) -> tuple[str, ...]:
        """A list with commas."""
        return tuple(part.strip() for part in self.option(name).split(",") if part.strip())


def parse_spec(text: str, names: frozenset[str]) -> DatasetSpec:
    """`text` taken apart; `names` are the known layouts. `DatasetError` for an empty text or odd options."""
    if not text.strip():
        raise DatasetError("no data set given: expected NAME:PATH, for instance camvid:/data/CamVid")
    head, mark, tail = text.partition("?") if text.count("?") == 1 else text.rpartition("?")
    if not mark:
        head, tail = text, ""
    elif not _OPTIONS.match(tail):
        raise DatasetError(f"{text}: after '?' expected options like val_clips=a,b&size=512, got {tail!r}")
    options: dict[str, str] = {}
    for pair in filter(None, tail.split("&")):
        key, _, value = pair.partition("=")
        if key in options:
            raise DatasetError(f"{text}: option {key} is given twice")
        options[key] = value
    name, path = _name_and_path(head, names)
    return DatasetSpec(name=name, path=path, options=options)


def _name_and_path(head: str, names: frozenset[str]) -> tuple[str | None, str]:
    found = _NAME.match(head)
    if found and found[1] in names:
        return found[1], found[2] or ""
    if found and found[2] is not None and not found[2].startswith("//"):
        return found[1], found[2]  # a name that nobody knows, to be named so
    return None, head
