"""Lists of videos: CSV or Parquet with a `uri` column and maybe a `video_id` column.

Model: a list is read row by row; nothing of it is interpreted but these two columns.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from vidseg_core.plan import s3
from vidseg_core.plan.errors import InputError
from vidseg_core.store.errors import StoreError
from vidseg_core.store.foreign import check_plain

LIST_SUFFIXES = (".csv", ".parquet", ".pq")

Row = tuple[str, str | None]
"""(uri, video_id or None)"""


def read(spec: str, path: str) -> Iterator[Row]:
    """Rows of the list at a local path or s3:// address. Raises InputError naming `spec` (and the row)."""
    file = io.BytesIO(s3.read(path)) if path.startswith("s3://") else _open(spec, path)
    with file:
        yield from _csv_rows(spec, file) if path.lower().endswith(".csv") else _parquet_rows(spec, file)


def _open(spec: str, path: str) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{spec}: cannot be read ({error.strerror})") from None


def _csv_rows(spec: str, file: Any) -> Iterator[Row]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        reader = csv.DictReader(text, skipinitialspace=True)
        _check_columns(spec, reader.fieldnames or [])
        for row in reader:
            yield _row(spec, reader.line_num, row.get("uri"), row.get("video_id"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{spec}: not a readable CSV file ({error})") from None
    finally:
        text.detach()


def _parquet_rows(spec: str, file: Any) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        _check_columns(spec, table.schema_arrow.names)
        columns = [name for name in ("uri", "video_id") if name in table.schema_arrow.names]
        check_plain((table.schema_arrow.field(name) for name in columns), spec)
        _check_text(spec, table.schema_arrow.field("uri").type)
        number = 0
        for batch in table.iter_batches(batch_size=4096, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield _row(spec, number, row["uri"], row.get("video_id"))
    except InputError:
        raise
    except StoreError as error:
        raise InputError(str(error)) from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{spec}: not a readable Parquet file ({error})") from None


def _check_columns(spec: str, names: Any) -> None:
    if "uri" not in names:
        raise InputError(
            f"{spec}: the list has no column 'uri' (columns: {', '.join(map(str, names)) or 'none'})"
        )
    for name in ("uri", "video_id"):
        if list(names).count(name) > 1:
            raise InputError(f"{spec}: the list has several columns {name!r}")


def _check_text(spec: str, kind: Any) -> None:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise InputError(f"{spec}: column 'uri' holds {kind}, not text")


def _row(spec: str, number: int, uri: Any, video_id: Any) -> Row:
    if not isinstance(uri, str) or not uri.strip():
        raise InputError(f"{spec}: row {number} has no uri")
    text = "" if video_id is None else str(video_id).strip()
    return uri.strip(), text or None
