"""Promise: the same rows give the same bytes in every process, and object names say what is committed."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.store.builders import CLASSES, frame_row, put_parts, video_row
from vidseg_core.store import (
    ObjectStore,
    PartKey,
    StateKey,
    StoreError,
    committed_parts,
    decode_mask,
    encode_part,
    encode_videos,
    list_states,
    parse_part_key,
    parse_state_key,
    part_key,
    state_key,
)
from vidseg_core.store.keys import span_key, visible

ELSEWHERE = """
import hashlib
from tests.store.builders import frame_row
from vidseg_core.store import encode_part
print(hashlib.sha256(encode_part("v", [frame_row(i) for i in range(70)], n_classes=5)).hexdigest())
"""


def _rows(data: bytes) -> list[dict]:
    return pq.read_table(io.BytesIO(data)).to_pylist()


def test_rows_come_back_with_their_masks() -> None:
    frames = [frame_row(i) for i in (3, 4, 9)]
    rows = _rows(encode_part("v", frames, n_classes=CLASSES))
    assert [row["frame_index"] for row in rows] == [3, 4, 9]
    for row, frame in zip(rows, frames, strict=True):
        assert (row["video_id"], row["pts_s"], row["lkd"]) == ("v", frame.pts_s, frame.lkd)
        np.testing.assert_array_equal(decode_mask(row["mask"], row["height"], row["width"]), frame.labels_HW)
        counts = np.bincount(frame.labels_HW.ravel(), minlength=CLASSES)
        assert row["class_pixels"] == counts.tolist()


def test_the_bytes_are_the_same_in_another_process() -> None:
    ours = hashlib.sha256(encode_part("v", [frame_row(i) for i in range(70)], n_classes=5)).hexdigest()
    theirs = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=True)
    assert theirs.stdout.strip() == ours


def test_a_part_is_cut_into_small_row_groups() -> None:
    metadata = pq.read_metadata(io.BytesIO(encode_part("v", [frame_row(i) for i in range(70)])))
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [32, 32, 6]


def test_a_decision_that_was_not_asked_for_is_null() -> None:
    rows = _rows(
        encode_part("v", [frame_row(6), frame_row(7), replace(frame_row(8), decision_score=float("inf"))])
    )
    assert [row["decision_score"] for row in rows] == [None, pytest.approx(0.7), float("inf")]


def test_class_pixels_count_labels_beyond_the_named_classes() -> None:
    void = replace(frame_row(0), labels_HW=np.full((2, 3), 255, np.uint8))
    pixels = _rows(encode_part("v", [void], n_classes=CLASSES))[0]["class_pixels"]
    assert (len(pixels), sum(pixels), pixels[255]) == (256, 6, 6)


@pytest.mark.parametrize("order", [(1, 1), (2, 1)])
def test_frames_out_of_order_are_refused(order: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="video v: frame numbers of a part must increase"):
        encode_part("v", [frame_row(i) for i in order])


def test_video_rows_with_unknown_or_missing_columns_are_refused() -> None:
    row = video_row("v", 3)
    with pytest.raises(ValueError, match=r"video row v: missing or unknown columns \['extra'\]"):
        encode_videos([row | {"extra": 1}])
    with pytest.raises(ValueError, match=r"\['keys'\]"):
        encode_videos([{name: value for name, value in row.items() if name != "keys"}])


def test_keys_are_built_and_read_back() -> None:
    assert part_key("a-1f", 3, 17) == "frames/video=a-1f/part-00003-000017.parquet"
    assert parse_part_key(part_key("a-1f", 3, 17)) == PartKey("a-1f", 3, 17, 17)
    assert state_key("a", 0, 4, 3) == "_state/video=a/00000-000004-000003.state"
    assert parse_state_key(state_key("a", 0, 4, 3)) == StateKey("a", 0, 4, 3)
    assert parse_part_key(part_key("a", 123456, 12345678)) == PartKey("a", 123456, 12345678, 12345678)
    span = PartKey("a", 1, 2, 9, True)
    assert parse_part_key(span_key("a", 1, 2, 9)) == span
    assert str(span) == span_key("a", 1, 2, 9)


@pytest.mark.parametrize(
    "key", ["run.json", "frames/video=a/part-1-2.parquet", "frames/video=a/b/part-00000-000000.parquet"]
)
def test_other_keys_are_no_parts(key: str) -> None:
    assert parse_part_key(key) is None
    assert parse_state_key(key) is None


@pytest.mark.parametrize("video_id", ["", "..", ".", "a/b", "a b", "ä", "a\n", "a=b"])
def test_an_id_that_could_leave_its_folder_has_no_key(video_id: str) -> None:
    for build in (lambda: part_key(video_id, 0, 0), lambda: state_key(video_id, 0, 0, 0)):
        with pytest.raises(ValueError, match="video id"):
            build()


def test_what_is_listed_is_committed(store: ObjectStore) -> None:
    put_parts(store, "a", [3, 0])
    put_parts(store, "a-b", [2], segment=4)
    store.put(span_key("a", 0, 0, 3), b"holds parts 0 to 3, two of which are deleted already")
    store.put("frames/video=a/notes.txt", b"")
    assert [(k.segment, k.first) for k in committed_parts(store, "a")] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert [(k.video_id, k.first) for k in committed_parts(store)] == [
        ("a-b", 0),
        *(("a", i) for i in range(4)),
    ]
    assert list(committed_parts(store, "b")) == []


def test_states_are_listed_in_order(store: ObjectStore) -> None:
    for shard, part in ((10, 9), (2, 1)):
        store.put(state_key("a", 0, shard, part), b"")
    store.put(state_key("b", 1, 1, 1), b"")
    assert list(list_states(store, "a")) == [StateKey("a", 0, 2, 1), StateKey("a", 0, 10, 9)]
    assert len(list(list_states(store))) == 3


def test_readers_take_the_span_and_skip_what_it_covers() -> None:
    span = PartKey("a", 0, 0, 4, True)
    beside = [PartKey("a", 0, 5, 5), PartKey("a", 1, 0, 0)]
    covered = [PartKey("a", 0, 0, 0), PartKey("a", 0, 4, 4), PartKey("a", 0, 0, 2, True)]
    assert visible([*covered, *reversed(beside), span]) == [span, *beside]


def test_spans_that_overlap_in_part_are_an_error() -> None:
    with pytest.raises(StoreError, match="would be read twice"):
        visible([PartKey("a", 0, 0, 4, True), PartKey("a", 0, 3, 8, True)])


def test_more_classes_than_a_mask_can_hold_are_one_sentence() -> None:
    with pytest.raises(StoreError, match="video a: masks are of 8 bits, 256 classes at most, not 300"):
        encode_part("a", [frame_row(0)], n_classes=300)
