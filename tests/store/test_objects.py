"""Promise: a local directory and a bucket are one kind of key space: same answers, same order."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from vidseg_core.store import CommitConflict, ObjectStore, StoreError, commit_part, open_store

BAD_KEYS = ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".hidden", "a/.b", "a\\b", "a\nb", "a/\0", "."]


def test_a_written_object_is_read_back_and_can_be_replaced_and_removed(store: ObjectStore) -> None:
    store.put("a/b.bin", b"one")
    store.put("a/b.bin", b"two")
    assert store.get("a/b.bin") == b"two"
    assert store.exists("a/b.bin")
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")


def test_a_missing_object_is_file_not_found(store: ObjectStore) -> None:
    with pytest.raises(FileNotFoundError, match="no such object"):
        store.get("nothing/here")
    assert list(store.list("nothing/")) == []


def test_the_first_put_if_absent_wins_and_later_ones_change_nothing(store: ObjectStore) -> None:
    assert store.put_if_absent("x", b"first")
    assert not store.put_if_absent("x", b"second")
    assert store.get("x") == b"first"


def test_of_racing_writers_exactly_one_wins(store: ObjectStore) -> None:
    writers = 8
    with ThreadPoolExecutor(writers) as pool:
        for turn in range(5):
            key = f"race/{turn}"
            won = list(
                pool.map(lambda i, key=key: store.put_if_absent(key, bytes([i]) * 1000), range(writers))
            )
            assert won.count(True) == 1
            assert store.get(key) == bytes([won.index(True)]) * 1000


def test_listing_is_sorted_by_whole_key_and_takes_any_prefix(store: ObjectStore) -> None:
    keys = ["f/a/1", "f/a-b/1", "f/a.x", "f/a0/1", "f/b/p-2", "f/b/p-10", "f/b/q", "g", "f/ä/1"]
    for key in keys:
        store.put(key, key.encode())
    assert [info.key for info in store.list()] == sorted(keys)
    assert [info.key for info in store.list("f/a")] == ["f/a-b/1", "f/a.x", "f/a/1", "f/a0/1"]
    assert [info.key for info in store.list("f/b/p-")] == ["f/b/p-10", "f/b/p-2"]
    assert [info.size for info in store.list("g")] == [1]


def test_a_store_survives_pickling(store: ObjectStore) -> None:
    store.put("x", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again.root == store.root
    assert again.get("x") == b"1"


def test_a_writable_output_passes_the_check_and_stays_empty(store: ObjectStore) -> None:
    store.check_writable()
    store.check_writable()
    assert list(store.list()) == []


@pytest.mark.parametrize("key", BAD_KEYS)
def test_no_key_leaves_the_root(store: ObjectStore, key: str) -> None:
    for call in (store.get, store.exists, store.delete):
        with pytest.raises(ValueError, match="not an object key"):
            call(key)
    for write in (store.put, store.put_if_absent):
        with pytest.raises(ValueError, match="not an object key"):
            write(key, b"")


def test_committing_again_is_fine_and_committing_other_bytes_is_a_conflict(store: ObjectStore) -> None:
    first, again = commit_part(store, "p", b"bytes"), commit_part(store, "p", b"bytes")
    assert (first.created, again.created) == (True, False)
    assert first.digest == again.digest
    with pytest.raises(CommitConflict, match=r"run: p exists with other content"):
        commit_part(store, "p", b"other")
    assert store.get("p") == b"bytes"


@pytest.mark.parametrize(
    ("output", "message"),
    [("gs://b/x", "unknown scheme gs"), ("s3://", "no bucket"), ("  ", "path is empty")],
)
def test_an_output_that_names_no_store_is_refused(output: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        open_store(output)
