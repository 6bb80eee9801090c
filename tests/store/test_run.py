"""Promise: a run reads back whole, each frame once, on disk and on S3 alike, and nothing else is a frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from benchmarks.run_digest import run_digest
from tests.s3_server import S3Bucket
from tests.store.builders import frame_row, labels_of, put_parts, put_run
from vidseg_core.store import (
    FRAMES_SCHEMA,
    VIDEOS_SCHEMA,
    ObjectStore,
    StoreError,
    encode_part,
    open_run,
    open_store,
)
from vidseg_core.store.compact import compact


@pytest.fixture
def filled(store: ObjectStore) -> ObjectStore:
    put_run(store)
    return store


def test_frames_are_one_dataset_with_the_contract_schema(filled: ObjectStore) -> None:
    frames = open_run(filled.root).frames()
    assert frames.schema == FRAMES_SCHEMA
    assert frames.count_rows() == 90
    table = frames.to_table(columns=["frame_index"], filter=ds.field("video_id") == "a-1f")
    assert sorted(table["frame_index"].to_pylist()) == list(range(60))


def test_a_filter_on_the_video_opens_its_files_only(filled: ObjectStore) -> None:
    frames = open_run(filled.root).frames()
    chosen = list(frames.get_fragments(ds.field("video_id") == "a"))
    assert {fragment.path.split("/")[1] for fragment in chosen} == {"video=a"}
    assert open_run(filled.root).frames(["a"]).count_rows() == 30


def test_every_mask_is_found_in_any_order(filled: ObjectStore) -> None:
    run = open_run(filled.root)
    for video_id, frames in (("a", 30), ("a-1f", 60)):
        for frame in [*range(0, frames, 4), *range(frames - 1, 0, -5)]:
            np.testing.assert_array_equal(run.mask(video_id, frame), labels_of(frame, len(video_id)))


def test_a_mask_that_is_not_there_is_a_key_error(filled: ObjectStore) -> None:
    run = open_run(filled.root)
    for video_id, frame in (("a", 30), ("a", -1), ("nobody", 0)):
        with pytest.raises(KeyError, match=f"no frame {frame} of video {video_id}"):
            run.mask(video_id, frame)


def test_masks_are_found_past_empty_and_missing_parts(store: ObjectStore) -> None:
    put_parts(store, "v", [0, 0, 3, 0, 0, 0, 2, 0])
    put_parts(store, "v", [4], segment=2, first=100)
    run = open_run(store.root)
    for frame in (0, 2, 3, 4, 100, 103):
        np.testing.assert_array_equal(run.mask("v", frame), labels_of(frame, 1))
    for frame in (5, 99, 104):
        with pytest.raises(KeyError):
            run.mask("v", frame)


def test_a_mask_committed_after_the_first_look_is_found(store: ObjectStore) -> None:
    put_parts(store, "v", [3])
    run = open_run(store.root)
    run.mask("v", 0)
    put_parts(store, "v", [2], segment=1, first=3)
    np.testing.assert_array_equal(run.mask("v", 4), labels_of(4, 1))


def test_rows_are_streamed_in_frame_order_with_the_columns_asked_for(filled: ObjectStore) -> None:
    rows = list(open_run(filled.root).rows("a-1f", ("is_key",)))
    assert [row["frame_index"] for row in rows] == list(range(60))
    assert set(rows[0]) == {"frame_index", "is_key"}
    with pytest.raises(StoreError, match="no frames of video nobody"):
        open_run(filled.root).rows("nobody")


def test_videos_info_and_completeness(filled: ObjectStore) -> None:
    run = open_run(filled.root)
    assert run.videos().schema == VIDEOS_SCHEMA
    assert sorted(run.videos()["video_id"].to_pylist()) == ["a", "a-1f"]
    assert run.info()["name"] == "test"
    assert run.complete
    filled.delete("_SUCCESS")
    assert not run.complete


def test_a_run_under_way_opens_without_its_last_objects(store: ObjectStore) -> None:
    put_parts(store, "v", [3])
    run = open_run(store.root)
    assert (run.complete, run.info(), run.videos().num_rows) == (False, {}, 0)
    assert run.frames().count_rows() == 3


def test_a_run_without_frames_is_empty_not_an_error(store: ObjectStore) -> None:
    store.put("run.json", b"{}")
    run = open_run(store.root)
    assert run.frames().count_rows() == 0
    assert run.frames().schema == FRAMES_SCHEMA
    assert len(run_digest(store.root)) == 64


def test_local_and_s3_hold_the_same_bytes(tmp_path: Path, s3: S3Bucket) -> None:
    stores = open_store(str(tmp_path)), open_store(s3.url + "/x")
    for store in stores:
        put_run(store)
    local, remote = ({info.key: store.get(info.key) for info in store.list()} for store in stores)
    assert local == remote
    assert run_digest(stores[0].root) == run_digest(stores[1].root)


@pytest.mark.parametrize("parts_of", [1, 4, 30])
def test_the_digest_does_not_see_how_rows_are_cut_into_parts(tmp_path: Path, parts_of: int) -> None:
    put_run(open_store(tmp_path / "a"), parts_of=7)
    put_run(open_store(tmp_path / "b"), parts_of=parts_of)
    assert run_digest(tmp_path / "a") == run_digest(tmp_path / "b")


def test_the_digest_sees_one_frame_less(tmp_path: Path) -> None:
    for name, frames in (("a", 60), ("b", 59)):
        put_run(open_store(tmp_path / name), frames=frames)
    assert run_digest(tmp_path / "a") != run_digest(tmp_path / "b")


def test_the_digest_sees_one_pixel(tmp_path: Path) -> None:
    row, key = frame_row(0), "frames/video=v/part-00000-000000.parquet"
    for name in ("a", "b"):
        row.labels_HW[0, 0] ^= name == "b"
        open_store(tmp_path / name).put(key, encode_part("v", [row], key=key))
    assert run_digest(tmp_path / "a") != run_digest(tmp_path / "b")


def test_a_frame_that_comes_twice_is_an_error(store: ObjectStore) -> None:
    put_parts(store, "v", [3])
    put_parts(store, "v", [3], segment=1, first=2)
    with pytest.raises(StoreError, match=r"part-00001-000000\.parquet: frame 2 after frame 2"):
        run_digest(store.root)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for path in (tmp_path / "x", tmp_path / "missing"):
        with pytest.raises(
            StoreError, match=f"{path} is not a vidseg run: it has neither run.json nor frames/"
        ):
            open_run(path)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path / "run")
    put_run(store)
    table = pq.read_table(tmp_path / "run/frames/video=a/part-00000-000000.parquet").select(
        FRAMES_SCHEMA.names
    )
    newer = table.replace_schema_metadata({"vidseg.schema_version": "9"})
    sink = pa.BufferOutputStream()
    pq.write_table(newer, sink)
    for info in list(store.list("frames/")):
        store.put(info.key, sink.getvalue().to_pybytes())
    for read in (lambda: open_run(store.root).frames(), lambda: open_run(store.root).mask("a", 0)):
        with pytest.raises(StoreError, match=r"schema version 9, this vidseg reads 1"):
            read()
    store.put("run.json", json.dumps({"schema_version": 9}).encode())
    with pytest.raises(StoreError, match=r"schema version 9, this vidseg reads 1"):
        open_run(store.root)


def test_a_damaged_run_json_is_named(store: ObjectStore) -> None:
    store.put("run.json", b"{half")
    with pytest.raises(StoreError, match=r"run\.json is damaged"):
        open_run(store.root)


def test_masks_are_found_after_a_compaction_under_our_feet(filled: ObjectStore) -> None:
    run = open_run(filled.root)
    run.mask("a", 3)
    compact(filled.root)
    np.testing.assert_array_equal(run.mask("a", 29), labels_of(29, 1))
