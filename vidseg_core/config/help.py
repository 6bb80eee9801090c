"""The ``--help`` of a verb: one line per option, in groups that each fit a screen.

The text under a field is the option's line, so there is one place to say what an option means. A config may
name groups for its own options with ``HELP_GROUPS`` (first field of a group -> its title); nested configs
are groups of their own. ``HELP_WORDS`` (name -> words) fill ``{name}`` in the texts of a config. ``FIRST`` is
the option of words without one.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Option", "field_texts", "options", "render_help"]

_LEFT = 38


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """One option: dotted `name`, `metavar` (empty for flags), `default` (None: `required`) and its `text`."""

    name: str
    group: str
    metavar: str
    default: str
    required: bool
    text: str


def field_texts(cls: type) -> dict[str, str]:
    """Field name -> the string literal under it in the class body (or a base's), white space collapsed."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            words: Mapping[str, str] = getattr(base, "HELP_WORDS", {})
            own = _own_texts(base)
            texts |= {name: text.format(**words) for name, text in own.items()} if words else own
    return texts


def _own_texts(cls: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        is_field = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if is_field and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            texts[statement.target.id] = " ".join(str(following.value.value).split())  # type: ignore[union-attr]
    return texts


def _metavar(hint: Any) -> str:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _metavar(next(part for part in parts if part is not type(None)))
    if origin is typing.Literal:
        return "|".join(map(str, parts))
    if origin is tuple:
        return f"{_metavar(parts[0])} ..."
    return {bool: "", int: "N", float: "X", str: "TEXT"}[hint]


def _default(item: dataclasses.Field[Any]) -> str:
    value = item.default if item.default is not dataclasses.MISSING else None
    if isinstance(value, bool):
        return "on" if value else ""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def options(cls: type, prefix: str = "", group: str = "options") -> Iterator[Option]:
    """Every option of `cls`, nested ones included: own options first, then group by group."""
    texts, hints = field_texts(cls), typing.get_type_hints(cls)
    titles: Mapping[str, str] = getattr(cls, "HELP_GROUPS", {})
    nested: list[tuple[str, type]] = []
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            nested.append((item.name, typing.cast(type, hint)))
            continue
        group = titles.get(item.name, group)
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        yield Option(
            name=prefix + item.name,
            group=group,
            metavar=_metavar(hint),
            default="" if required else _default(item),
            required=required,
            text=texts.get(item.name, ""),
        )
    for name, inner in nested:
        title = f"{name}: {inspect.getdoc(inner)}".split("\n")[0].rstrip(".")
        yield from options(inner, f"{prefix}{name}.", title)


def render_help(verb: str, cls: type, width: int = 100) -> str:
    """The whole help text of `verb`, lines at most `width` columns wide (at least 60)."""
    width = max(60, width)
    first: str | None = getattr(cls, "FIRST", None)
    words = f"[{first.upper()}] " if first else ""
    usage = f"usage: vidseg {verb} {words}[--config FILE.yaml] [options]"
    lines = [usage, "", inspect.getdoc(cls) or "", ""]
    group = ""
    for option in options(cls):
        if option.group != group:
            lines += [""] * bool(group) + [option.group]
            group = option.group
        lines += _option_lines(option, width)
    config_text = "the same options from a file, as nested keys; what is typed here wins over it"
    lines += ["", *_two_columns("  --config FILE.yaml", config_text, width)]
    return "\n".join(lines) + "\n"


def _option_lines(option: Option, width: int) -> list[str]:
    tail = "required" if option.required else f"default {option.default}" if option.default else "off"
    return _two_columns(f"  --{option.name} {option.metavar}".rstrip(), f"{option.text} [{tail}]", width)


def _two_columns(head: str, text: str, width: int) -> list[str]:
    wrapped = textwrap.wrap(text, width - _LEFT, break_on_hyphens=False, break_long_words=False)
    if len(head) >= _LEFT - 1:
        first, *more = textwrap.wrap(head.replace("|", "| "), width - 6, break_on_hyphens=False)
        heads = [line.replace("| ", "|") for line in (f"  {first.strip()}", *(f"      {m}" for m in more))]
        return [*heads, *(" " * _LEFT + line for line in wrapped)]
    return [head.ljust(_LEFT) + wrapped[0], *(" " * _LEFT + line for line in wrapped[1:])]
