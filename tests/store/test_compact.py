"""Promise: wherever a compaction is interrupted, readers see every frame once, and the next finishes it."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks.run_digest import run_digest
from tests.store.builders import CLASSES, frame_row, labels_of, put_parts, put_run
from vidseg_core.store import (
    CompactResult,
    LocalStore,
    ObjectStore,
    StoreError,
    commit_part,
    committed_parts,
    compact,
    compact_video,
    encode_part,
    open_run,
    open_store,
    part_key,
)


class _PowerCut(Exception):
    pass


class _CutStore(LocalStore):
    """Dies at its n-th change."""

    def __init__(self, root: str, changes: int) -> None:
        super().__init__(root)
        self._left = changes

    def _count(self) -> None:
        if self._left == 0:
            raise _PowerCut
        self._left -= 1

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._count()
        return super().put_if_absent(key, data)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)


@pytest.fixture
def local(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path)


def _names(store: ObjectStore) -> list[str]:
    return [info.key.removeprefix("frames/") for info in store.list("frames/")]


def test_small_parts_become_one_span_a_segment(store: ObjectStore) -> None:
    put_run(store)
    before, committed = run_digest(store.root), sorted(committed_parts(store))
    assert compact(store.root) == CompactResult(spans=3, parts_removed=16)
    assert _names(store) == [
        "video=a-1f/span-00000-000000-000004.parquet",
        "video=a-1f/span-00001-000000-000005.parquet",
        "video=a/span-00000-000000-000004.parquet",
    ]
    assert run_digest(store.root) == before
    assert sorted(committed_parts(store)) == committed
    np.testing.assert_array_equal(open_run(store.root).mask("a-1f", 41), labels_of(41, 4))


def test_a_second_compaction_does_nothing(local: ObjectStore) -> None:
    put_run(local)
    compact(local.root)
    before = {info.key: local.get(info.key) for info in local.list()}
    assert compact(local.root) == CompactResult(0, 0)
    assert {info.key: local.get(info.key) for info in local.list()} == before


def test_interrupted_anywhere_no_frame_is_lost_or_doubled(tmp_path: Path) -> None:
    put_run(open_store(tmp_path / "whole"), frames=40)
    digest = run_digest(tmp_path / "whole")
    for changes in range(100):
        root = str(tmp_path / f"cut-{changes}")
        put_run(open_store(root), frames=40)
        store = _CutStore(root, changes)
        try:
            for video_id in ("a", "a-1f"):
                compact_video(store, video_id, span_bytes=20_000)
            break
        except _PowerCut:
            assert run_digest(root) == digest
            assert open_run(root).frames().count_rows() == 60
            assert len(list(committed_parts(open_store(root)))) == 10
            compact(root, span_bytes=20_000)
            assert run_digest(root) == digest
            assert not any("part-" in name for name in _names(open_store(root)))
    assert changes > 10


def test_spans_are_cut_at_the_size_asked_for(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put_run(store, parts_of=2, frames=60)
    size = next(info.size for info in store.list("frames/video=a/"))
    compact(tmp_path, span_bytes=5 * size)
    spans = [name for name in _names(store) if name.startswith("video=a/")]
    assert len(spans) in (3, 4, 5)
    assert all("span-" in name for name in spans)


def test_parts_with_a_gap_between_them_are_not_joined(local: ObjectStore) -> None:
    put_parts(local, "v", [2, 2, 2, 2, 2])
    local.delete("frames/video=v/part-00000-000002.parquet")
    compact(local.root, force=True)
    assert _names(local) == [
        "video=v/span-00000-000000-000001.parquet",
        "video=v/span-00000-000003-000004.parquet",
    ]


def test_a_part_without_a_neighbour_stays_as_it_is(local: ObjectStore) -> None:
    put_parts(local, "v", [2, 2, 2, 2])
    put_parts(local, "v", [3], segment=1, first=8)
    local.delete("frames/video=v/part-00000-000002.parquet")
    before = run_digest(local.root)
    assert compact(local.root, force=True) == CompactResult(spans=1, parts_removed=2)
    assert _names(local) == [
        "video=v/part-00000-000003.parquet",
        "video=v/part-00001-000000.parquet",
        "video=v/span-00000-000000-000001.parquet",
    ]
    assert run_digest(local.root) == before


def test_parts_committed_after_a_forced_compaction_join_a_later_span(local: ObjectStore) -> None:
    put_parts(local, "v", [2, 2, 2])
    compact(local.root, force=True)
    put_parts(local, "w", [1])
    for shard, first in ((3, 6), (4, 8)):
        _put_one(local, shard, first)
    compact(local.root, force=True)
    assert _names(local)[:2] == [
        "video=v/span-00000-000000-000002.parquet",
        "video=v/span-00000-000003-000004.parquet",
    ]
    assert [row["frame_index"] for row in open_run(local.root).rows("v")] == list(range(10))


def test_a_part_that_a_late_writer_commits_again_is_not_read_twice(store: ObjectStore) -> None:
    put_run(store)
    digest, key = run_digest(store.root), "frames/video=a/part-00000-000001.parquet"
    data = store.get(key)
    compact(store.root)
    assert commit_part(store, key, data).created
    assert run_digest(store.root) == digest
    assert compact(store.root) == CompactResult(0, 1)


def test_a_run_that_is_not_complete_is_left_alone(local: ObjectStore) -> None:
    put_run(local)
    local.delete("_SUCCESS")
    before = _names(local)
    with pytest.raises(StoreError, match=r"is not complete \(_SUCCESS is missing\)"):
        compact(local.root)
    assert _names(local) == before
    assert compact(local.root, force=True).spans == 3


def test_two_compactions_at_once_do_no_harm(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put_run(store, parts_of=2)
    digest, errors = run_digest(tmp_path), []

    def work() -> None:
        try:
            compact(tmp_path, span_bytes=20_000)
        except Exception as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    compact(tmp_path, span_bytes=20_000)
    assert errors == []
    assert run_digest(tmp_path) == digest
    assert not any("part-" in name for name in _names(store))


def test_readers_meanwhile_see_every_frame_once(tmp_path: Path) -> None:
    put_run(open_store(tmp_path), parts_of=1, frames=60)
    digest, seen, done = run_digest(tmp_path), set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(run_digest(tmp_path))

    reader = threading.Thread(target=read)
    reader.start()
    compact(tmp_path, span_bytes=30_000)
    done.set()
    reader.join()
    assert seen <= {digest}


def _put_one(store: ObjectStore, shard: int, first: int) -> None:
    rows = [frame_row(first + i, 1) for i in range(2)]
    commit_part(store, part_key("v", 0, shard), encode_part("v", rows, n_classes=CLASSES))
