"""The curve of a training run as a table: `curve.parquet`, one row for each logged step."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.store.atomic import write_whole

CURVE = "curve.parquet"
SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("lr", pa.float64()),
        ("loss", pa.float64()),
        ("val_miou", pa.float64()),
        ("seconds", pa.float64()),
        ("data_share", pa.float64()),
    ]
)
"""`val_miou` is null where nothing was validated; the meaning of the others: `loop.Row`."""


def write_curve(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """All rows so far, in one step."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA), sink)
    write_whole(folder / CURVE, sink.getvalue())
