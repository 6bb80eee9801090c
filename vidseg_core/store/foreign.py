"""Parquet of somebody else's: read without running anything that it contains.

Model: Ray registers Arrow extension types whose values are pickles, for every reader of the process that has
imported it. A column of such a type, in a list of videos or in a run that came from elsewhere, would run its
code as soon as a value is looked at. None of our tables has a column of any extension type.
Invariant: no value of a file is looked at before `check_plain` has passed its schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.store.errors import StoreError


def check_plain(fields: Iterable[pa.Field], where: str) -> None:
    """`StoreError` if a column holds anything but plain values (of Arrow's own types)."""
    for field in fields:
        kind = _extension_in(field.type)
        if kind is not None:
            raise StoreError(f"{where}: column {field.name!r} is of the type {kind!r}, which is never read")


def read_plain(data: bytes, where: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in the bytes of a Parquet file; `StoreError` as above."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        check_plain(file.schema_arrow, where)
        return file.read(columns=list(columns) if columns is not None else None)


def _extension_in(kind: pa.DataType) -> str | None:
    if isinstance(kind, pa.BaseExtensionType):
        return kind.extension_name
    if pa.types.is_dictionary(kind):
        return _extension_in(kind.value_type)
    inside = (_extension_in(kind.field(number).type) for number in range(kind.num_fields))
    return next((found for found in inside if found is not None), None)
