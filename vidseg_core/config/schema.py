"""From config dataclasses to plain values and back: dictionaries, YAML files, and what must not be in them.

Invariant: ``from_dict(type(c), to_dict(c)) == c`` for every config, and no dump holds a credential.
Only the types that configs use are supported: str, int, float, bool, ``X | None``, ``Literal``,
``tuple[str, ...]`` and nested config dataclasses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vidseg_core.config.errors import ConfigError, nearest

__all__ = [
    "blame",
    "choices",
    "flat_dict",
    "flatten",
    "from_dict",
    "load_yaml",
    "option_types",
    "redact",
    "to_dict",
    "to_yaml",
    "unchecked",
]

ConfigT = TypeVar("ConfigT")

_USERINFO = re.compile(r"^(https?://|[a-z][\w+.-]*://(?=[^/?#\s]*:[^/?#\s]*@))[^/?#\s]+@", re.IGNORECASE)
"""What stands before the host: on the web always, elsewhere if there is a password in it."""
_SECRET_QUERY = re.compile(
    r"([?&](?:sig|auth|[\w-]*(?:signature|token|secret|password|credential|authorization|"
    r"(?:access|api)[-_]?key)[\w-]*)=)([^&#\s]+)",
    re.IGNORECASE,
)

_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring = 2, 200
"""For messages: a short YAML file with references can stand for a value of any size."""
_LINE_BREAKS = ("\x85", "\u2028", "\u2029")


def redact(text: str) -> str:
    """`text` with passwords of an address and secret query values replaced by ``***``; paths stay."""
    if "://" not in text:
        return text
    return _SECRET_QUERY.sub(r"\1***", _USERINFO.sub(r"\1***@", text))


def _is_config(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _plain(value: Any) -> Any:
    if _is_config(value):
        return to_dict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def to_dict(config: Any) -> dict[str, Any]:
    """`config` as nested plain values (tuples become lists), credentials redacted."""
    return {item.name: _plain(getattr(config, item.name)) for item in dataclasses.fields(config)}


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one dictionary by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + str(key)] = value
    return flat


def flat_dict(config: Any) -> dict[str, Any]:
    """`to_dict` by dotted option name."""
    return flatten(to_dict(config))


def to_yaml(config: Any) -> str:
    """`to_dict` as YAML, in field order."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes texts with Unicode line breaks, which YAML would otherwise fold into blanks."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = '"' if any(mark in value for mark in _LINE_BREAKS) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(
        to_dict(config), Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )


def option_types(cls: type, prefix: str = "") -> dict[str, Any]:
    """Dotted option name -> type, of `cls` and the configs inside it, in field order."""
    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            found.update(option_types(typing.cast(type, hint), f"{prefix}{item.name}."))
        else:
            found[prefix + item.name] = hint
    return found


def choices(cls: type) -> Mapping[str, str]:
    """Option -> what there is to choose, for required options of `cls` that deserve more than a word."""
    return getattr(cls, "CHOICES", {})


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; `ConfigError` names the file (and line) that cannot be read."""
    import yaml

    option = f"--config {path}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(option, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(option, f"is not YAML: {' '.join(str(error).split())}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(option, f"must hold a mapping of options, not a {type(value).__name__}")
    return value


def from_dict(cls: type[ConfigT], values: dict[str, Any], *, source: str = "") -> ConfigT:
    """An instance of `cls` from nested plain values, as `to_dict` and YAML files give them.

    `source` (``--config run.yaml``) is put before messages. Raises `ConfigError` for an unknown key (with the
    nearest known one), for a value of another type, for what is required and absent, and for whatever the
    config itself refuses.
    """
    with blame(source):
        draft = unchecked(cls, values, missing=dataclasses.MISSING)
        return _checked(draft)


@contextlib.contextmanager
def blame(source: str) -> Iterator[None]:
    """Put `source` (a file) before the option in every `ConfigError` that passes."""
    try:
        yield
    except ConfigError as error:
        if not source:
            raise
        raise ConfigError(f"{source}: {error.option.lstrip('-')}", error.problem) from error


def unchecked(cls: type[ConfigT], values: dict[str, Any], *, missing: object, prefix: str = "") -> ConfigT:
    """A draft of `cls`: keys and types are checked, ``__post_init__`` is not run, holes hold `missing`.

    Drafts exist because a file may be completed, or corrected, by the command line that names it.
    """
    check_keys(cls, values, prefix)
    hints = typing.get_type_hints(cls)
    draft = object.__new__(cls)
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        hint, name = hints[item.name], f"{prefix}{item.name}"
        if dataclasses.is_dataclass(hint):
            inner = values.get(item.name) or {}
            value = unchecked(typing.cast(type, hint), inner, missing=missing, prefix=f"{name}.")
        elif item.name in values:
            value = convert(hint, values[item.name], f"--{name}")
        else:
            value = _default(item, missing)
        object.__setattr__(draft, item.name, value)
    return draft


def _default(item: dataclasses.Field[Any], missing: object) -> Any:
    if item.default is not dataclasses.MISSING:
        return item.default
    return missing if item.default_factory is dataclasses.MISSING else item.default_factory()


def _checked(draft: Any, prefix: str = "") -> Any:
    """`draft` built again through its constructor, which validates it."""
    arguments = {}
    for item in dataclasses.fields(draft):
        value = getattr(draft, item.name)
        if value is dataclasses.MISSING:
            raise ConfigError(f"--{prefix}{item.name}", choices(type(draft)).get(item.name, "is required"))
        arguments[item.name] = _checked(value, f"{prefix}{item.name}.") if _is_config(value) else value
    return type(draft)(**arguments)


def check_keys(cls: type, values: Any, prefix: str = "") -> None:
    """Refuse what is not a mapping, and keys that `cls` does not have (nested configs included)."""
    if not isinstance(values, dict):
        raise ConfigError(
            f"--{prefix.rstrip('.')}", f"must be a mapping of options, got {_REPR.repr(values)}"
        )
    hints = typing.get_type_hints(cls)
    names = [item.name for item in dataclasses.fields(cls)]
    for key, value in values.items():
        if key not in names:
            known = [*names, *(name.rpartition(".")[2] for name in option_types(cls, prefix))]
            raise ConfigError(f"--{prefix}{key}", f"no such option{nearest(str(key), known)}")
        if dataclasses.is_dataclass(hints[key]) and value is not None:
            check_keys(typing.cast(type, hints[key]), value, f"{prefix}{key}.")


def convert(hint: Any, value: Any, option: str) -> Any:
    """`value` as `hint` wants it, or `ConfigError`: ints pass as floats and as texts, nothing else bends."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        return convert(next(part for part in parts if part is not type(None)), value, option)
    if origin is typing.Literal:
        if value in parts and not isinstance(value, bool):
            return value
        raise ConfigError(option, f"must be one of {', '.join(map(str, parts))}, got {_REPR.repr(value)}")
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(convert(parts[0], item, option) for item in items)
    return _scalar(hint, value, option)


def _scalar(hint: type, value: Any, option: str) -> Any:
    is_bool = isinstance(value, bool)
    if hint is bool and is_bool:
        return value
    if hint is int and isinstance(value, int) and not is_bool:
        return value
    if hint is float and isinstance(value, (int, float)) and not is_bool:
        return float(value)
    if hint is str and isinstance(value, (str, int)) and not is_bool:
        return str(value)
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    raise ConfigError(option, f"must be {words.get(hint, str(hint))}, got {_REPR.repr(value)}")
