"""Promise: a run that an older version finished is read by every reader; columns that came later are null.

Why: columns are only added, and a table that could not be read for want of a column that nobody knew of when
it was written would be lost.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.store.builders import older_bytes, put_run, video_row
from vidseg_core.store import (
    FRAMES_SCHEMA,
    VIDEOS_SCHEMA,
    ObjectStore,
    StoreError,
    compact,
    open_run,
    open_store,
)
from vidseg_core.store.schema import conformed


def without(store: ObjectStore, key: str, *columns: str) -> None:
    """Write a file again as a version wrote it that did not know these columns."""
    table = pq.read_table(pa.BufferReader(store.get(key))).drop_columns(list(columns))
    store.put(key, older_bytes(table))


@pytest.fixture
def older(tmp_path: Path) -> ObjectStore:
    store = open_store(tmp_path)
    put_run(store)
    without(store, "videos/a.parquet", "parts", "stream", "other_streams")
    for info in list(store.list("frames/video=a/")):
        without(store, info.key, "pts_reason", "decision_score")
    return store


def test_rows_of_videos_have_null_for_what_came_later(older: ObjectStore) -> None:
    videos = open_run(older.root).videos()
    assert videos.schema == VIDEOS_SCHEMA
    assert min(videos[name].null_count for name in ("parts", "stream", "other_streams")) >= 1


def test_rows_of_frames_have_null_for_what_came_later(older: ObjectStore) -> None:
    rows = list(open_run(older.root).rows("a"))
    assert sorted(rows[0]) == sorted(FRAMES_SCHEMA.names)
    assert {(row["decision_score"], row["pts_reason"]) for row in rows} == {(None, None)}
    assert [row["decision_score"] for row in open_run(older.root).rows("a", ["decision_score"])] == [
        None
    ] * 30
    assert open_run(older.root).frames(["a"]).to_table()["decision_score"].null_count == 30


def test_compact_merges_them_into_the_schema_of_today(older: ObjectStore) -> None:
    compact(older.root)
    span = pq.read_schema(pa.BufferReader(older.get("frames/video=a/span-00000-000000-000004.parquet")))
    assert span.names == FRAMES_SCHEMA.names
    assert len(list(open_run(older.root).rows("a"))) == 30


def test_a_column_that_no_version_lacked_is_an_error(older: ObjectStore) -> None:
    table = pa.Table.from_pylist([video_row("v", 3)]).drop_columns(["status"])
    with pytest.raises(StoreError, match="here: there is no column 'status'"):
        conformed(table, VIDEOS_SCHEMA, "here")
    with pytest.raises(StoreError, match=r"part-00000-000000\.parquet: there is no column 'nothing'"):
        next(open_run(older.root).rows("a", ["nothing"]))
