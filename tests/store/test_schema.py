"""Promise: the tables' columns are a contract; whoever changes them changes a golden file and means it."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.store.builders import frame_row, video_row
from vidseg_core.store import (
    FRAMES_SCHEMA,
    REGION_SCHEMA,
    SCHEMA_VERSION,
    VIDEOS_SCHEMA,
    StoreError,
    encode_part,
    encode_videos,
)
from vidseg_core.store.schema import check_version

GOLDEN = Path(__file__).parent / "golden"


def _described(schema: pa.Schema) -> str:
    lines = [f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in schema]
    return "\n".join([f"schema version {SCHEMA_VERSION}", *lines]) + "\n"


@pytest.mark.parametrize(
    ("name", "schema"), [("frames", FRAMES_SCHEMA), ("regions", REGION_SCHEMA), ("videos", VIDEOS_SCHEMA)]
)
def test_the_schema_is_the_golden_one(name: str, schema: pa.Schema) -> None:
    assert _described(schema) == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    ("data", "schema"),
    [
        (encode_part("v", [frame_row(0), frame_row(1)]), FRAMES_SCHEMA),
        (encode_part("v", []), FRAMES_SCHEMA),
        (encode_videos([video_row("v", 2)], "videos/v.parquet"), VIDEOS_SCHEMA),
    ],
)
def test_files_have_the_schema_and_say_its_version(data: bytes, schema: pa.Schema) -> None:
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.schema_arrow.equals(schema, check_metadata=False)
    fields = file.metadata.metadata
    assert fields.pop(b"vidseg.schema_version") == b"1"
    assert set(fields) - {b"vidseg.key"} == {b"vidseg.crc32"}


def test_other_versions_and_foreign_files_are_refused() -> None:
    check_version({b"vidseg.schema_version": b"1"}, "here")
    with pytest.raises(StoreError, match="here: schema version 2, this vidseg reads 1"):
        check_version({b"vidseg.schema_version": b"2"}, "here")
    with pytest.raises(StoreError, match="here: not written by vidseg"):
        check_version(None, "here")
