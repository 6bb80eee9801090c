"""Files to name as input, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.plan import expand_inputs


def touch(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(specs: list[str] | str, **options: Any) -> list[str]:
    return [
        Path(video.uri).name
        for video in expand_inputs([specs] if isinstance(specs, str) else specs, **options)
    ]


def write_list(path: Path, rows: list[dict[str, str | None]]) -> str:
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        lines = [",".join(table.column_names), *(",".join(row[name] or "" for name in row) for row in rows)]
        path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    return str(path)
