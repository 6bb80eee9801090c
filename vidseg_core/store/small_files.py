"""Small files of an output (JSON, tables of facts), read and checked.

Invariant: a file that is cut off, empty, of other bytes or of another shape is a `DamagedFile` that names it
and says what to do; who uses what is read need not doubt the kinds of the fields that its shape names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from vidseg_core.store.errors import DamagedFile, StoreError
from vidseg_core.store.foreign import read_plain
from vidseg_core.store.objects import ObjectStore

__all__ = ["NUMBER", "TEXT", "Shape", "json_object", "read_object", "read_table"]

Shape = Mapping[str, Any]
"""What the fields of a JSON object are, where it has them: a type, a tuple of types, another shape, or
`[kind]` for a list of that kind. A name that ends with `!` must be there."""
NUMBER = (int, float)
TEXT = (str, type(None))
OTHER_OUTPUT = "put it back from a copy, or use another --output"
"""What to do about a file that says whose output this is."""


def read_object(store: ObjectStore, key: str, shape: Shape, remedy: str) -> dict[str, Any]:
    """The JSON object under a key; `FileNotFoundError` if there is none. `remedy`: what to do if damaged."""
    return json_object(store.get(key), f"{store.root}: {key}", shape, remedy)


def json_object(data: bytes, where: str, shape: Shape, remedy: str) -> dict[str, Any]:
    """The JSON object in these bytes."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{where} is damaged ({_why(error)}); {remedy}") from None
    if wrong := _misfit(found, shape, "it"):
        raise DamagedFile(f"{where} is damaged ({wrong}); {remedy}")
    return found


def read_table(
    data: bytes,
    where: str,
    remedy: str,
    schema: pa.Schema | None = None,
    needed: Sequence[str] = (),
    later: Sequence[str] = (),
) -> pa.Table:
    """The Parquet table in these bytes: the columns of `schema`, those `needed` with a value in every row.

    Without a schema it has its own columns. `later`: columns that older files do not have; null then.
    """
    try:
        table = read_plain(data, where, schema and schema.names)
        for name in later:
            if schema is not None and name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
        return _conformed(table, schema, needed)
    except StoreError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"{where} is damaged ({_why(error)}); {remedy}") from None


def _conformed(table: pa.Table, schema: pa.Schema | None, needed: Sequence[str]) -> pa.Table:
    names = table.column_names
    for name in (*needed, *(schema.names if schema else names)):
        if names.count(name) != 1:
            raise ValueError(f"there {'are several columns' if name in names else 'is no column'} {name!r}")
    metadata = table.schema.metadata
    if schema is not None:
        table = table.select(schema.names).cast(schema.with_metadata(metadata))
    for name in needed:
        if table[name].null_count:
            raise ValueError(f"column {name!r} has rows without a value")
    table.validate(full=True)  # text that is no UTF-8, offsets that lead nowhere
    return table


def _misfit(found: Any, kind: Any, name: str) -> str:
    """What is wrong with a value, in words; empty if nothing is."""
    if isinstance(kind, Mapping):
        if not isinstance(found, dict):
            return f"{name} is no object"
        missing = [n[:-1] for n in kind if n.endswith("!") and n[:-1] not in found]
        if missing:
            return f"there is no {', '.join(missing)}"
        fields = {n.rstrip("!"): inner for n, inner in kind.items()}
        return _first(_misfit(found[n], inner, n) for n, inner in fields.items() if n in found)
    if isinstance(kind, list):
        if not isinstance(found, list):
            return f"{name} is no list"
        return _first(_misfit(item, kind[0], f"an entry of {name}") for item in found)
    if not isinstance(found, kind) or (isinstance(found, bool) and not _allows_bool(kind)):
        return f"{name} is of the wrong kind"
    return ""


def _allows_bool(kind: Any) -> bool:
    return kind is object or bool in (kind if isinstance(kind, tuple) else (kind,))


def _first(words: Any) -> str:
    return next((word for word in words if word), "")


def _why(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
