"""Lists of videos: CSV or Parquet with a `uri` column and, if you like, some more of `COLUMNS`.

Model: a list is one file, or a folder of Parquet parts; it is read row by row, and nothing of it is
interpreted but these columns. A cell may be empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from vidseg_core.config.excerpt import EXCERPT, Excerpt
from vidseg_core.media.remote import is_remote
from vidseg_core.plan import remote, s3
from vidseg_core.plan.errors import InputError
from vidseg_core.store.errors import StoreError
from vidseg_core.store.foreign import check_plain

LIST_SUFFIXES = (".csv", ".parquet", ".pq")
_PART_SUFFIXES = LIST_SUFFIXES[1:]

COLUMNS = ("uri", "video_id", *EXCERPT)

Row = tuple[str, str | None, Excerpt]
"""(uri, video_id or None, what of it the row asks for)"""


def is_part(name: str) -> bool:
    """Whether a file of a folder is a part of a list; `name` from the folder on (`_` or `.` marks others)."""
    marked = any(piece.startswith(("_", ".")) for piece in name.split("/"))
    return name.lower().endswith(_PART_SUFFIXES) and not marked


def read(spec: str, path: str) -> Iterator[Row]:
    """Rows of the list at a local path or s3:// address. Raises InputError naming `spec` (and the row)."""
    file = _open(spec, path)
    with file:
        yield from _csv_rows(spec, file) if path.lower().endswith(".csv") else _parquet_rows(spec, file)


def _open(spec: str, path: str) -> Any:
    if path.startswith("s3://"):
        return io.BytesIO(s3.read(path))
    if is_remote(path):
        return io.BytesIO(remote.read(path))
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
            yield _row(spec, reader.line_num, row)
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
        columns = [name for name in COLUMNS if name in table.schema_arrow.names]
        check_plain((table.schema_arrow.field(name) for name in columns), spec)
        _check_types(spec, {name: table.schema_arrow.field(name).type for name in columns})
        number = 0
        for batch in table.iter_batches(batch_size=4096, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield _row(spec, number, row)
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
    for name in COLUMNS:
        if list(names).count(name) > 1:
            raise InputError(f"{spec}: the list has several columns {name!r}")


def _check_types(spec: str, kinds: Mapping[str, Any]) -> None:
    """Texts, for ids also whole numbers; not 3.0 and NaN, which pandas makes of them where one is missing."""
    import pyarrow as pa

    of = {name: kind.value_type if pa.types.is_dictionary(kind) else kind for name, kind in kinds.items()}
    if not _is_text(of["uri"]):
        raise InputError(f"{spec}: column 'uri' holds {of['uri']}, not text")
    ids = of.get("video_id", pa.null())
    if not (_is_text(ids) or pa.types.is_integer(ids) or pa.types.is_null(ids)):
        raise InputError(f"{spec}: column 'video_id' holds {ids}, neither text nor whole numbers")


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _row(spec: str, number: int, row: Mapping[str, Any]) -> Row:
    uri, video_id = row["uri"], row.get("video_id")
    if not isinstance(uri, str) or not uri.strip():
        raise InputError(f"{spec}: row {number} has no uri")
    text = "" if video_id is None else str(video_id).strip()
    if text.lower() == "nan":
        raise InputError(
            f"{spec}: row {number} has the video_id {text!r}; leave it empty where there is none"
        )
    return uri.strip(), text or None, _excerpt(f"{spec}: row {number}", row)


def _excerpt(where: str, row: Mapping[str, Any]) -> Excerpt:
    values = {name: _number(f"{where}: {name}", row.get(name)) for name in EXCERPT}
    excerpt = Excerpt(**values)
    if found := excerpt.problem():
        raise InputError(f"{where}: {' '.join(found)}")
    return excerpt


def _number(what: str, value: Any) -> float | None:
    """A cell as a number; None for an empty one (NaN, as pandas writes it)."""
    text = "" if value is None else str(value).strip()
    if not text or text.lower() == "nan":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{what} is no number: {text!r}") from None
