"""Promise: a writer killed at any moment leaves nothing that a reader can see, with or without hard links."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vidseg_core.store import LocalStore, StoreError, WriteError

KEY = "frames/video=a/part-00000-000000.parquet"
RACER = """
import sys, time
from vidseg_core.store.local_store import LocalStore
store, who = LocalStore(sys.argv[1]), sys.argv[2].encode()
print("ready", flush=True)
sys.stdin.readline()
print("".join(str(int(store.put_if_absent(f"race/{turn}", who * 1000))) for turn in range(200)))
"""
SLOW_WRITER = """
import os, sys, time
from vidseg_core.store.local_store import LocalStore
os.fsync = lambda descriptor: (print("written", flush=True), time.sleep(60))
LocalStore(sys.argv[1]).put_if_absent(sys.argv[2], b"x" * 100_000)
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "run"))


def _no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def _visible(root: Path) -> list[str]:
    return [name for _, _, names in os.walk(root) for name in names if not name.startswith(".")]


def test_of_racing_processes_exactly_one_wins_each_key(store: LocalStore) -> None:
    command = [sys.executable, "-c", RACER, store.root]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([*command, who], **pipes) for who in "ab"]
    for racer in racers:
        assert racer.stdout and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    wins = [racer.communicate(timeout=30)[0].strip() for racer in racers]
    for turn, (a, b) in enumerate(zip(*wins, strict=True)):
        assert a != b
        assert store.get(f"race/{turn}") == (b"a" if a == "1" else b"b") * 1000


def test_a_writer_killed_half_way_leaves_nothing_visible(store: LocalStore) -> None:
    command = [sys.executable, "-c", SLOW_WRITER, store.root, KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)
    assert list(store.list()) == []
    assert _visible(Path(store.root)) == []
    assert not list(Path(store.root).glob("frames/**/*.parquet"))
    assert store.put_if_absent(KEY, b"again")
    assert store.get(KEY) == b"again"


def test_debris_of_killed_writers_is_swept_when_old(store: LocalStore) -> None:
    store.put(KEY, b"kept")
    debris = Path(store.root, "frames/video=a/.0123.tmp")
    debris.write_bytes(b"half")
    assert store.sweep() == 0
    old = time.time() - 90_000
    os.utime(debris, (old, old))
    assert store.sweep() == 1
    assert not debris.exists()
    assert store.get(KEY) == b"kept"


def test_a_file_system_without_hard_links_has_one_winner_too(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    assert store.put_if_absent(KEY, b"first")
    assert not store.put_if_absent(KEY, b"second")
    assert store.get(KEY) == b"first"
    assert [info.key for info in store.list()] == [KEY]


def test_without_hard_links_the_lock_decides_a_race(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.put_if_absent(KEY, bytes([i])), range(8)))
    assert won.count(True) == 1
    assert store.get(KEY) == bytes([won.index(True)])


def test_a_link_that_a_network_file_system_made_but_reported_as_failed_counts(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link_then_fail(source: str, target: str) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists", target)

    monkeypatch.setattr(os, "link", link_then_fail)
    assert store.put_if_absent(KEY, b"ours")


def test_a_full_disk_is_a_write_error_and_leaves_nothing(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(WriteError, match=rf"{store.root}: cannot write {KEY}: No space left on device$"):
        store.put_if_absent(KEY, b"data")
    assert [name for _, _, names in os.walk(store.root) for name in names] == []


def test_an_output_below_a_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for root in (tmp_path / "taken", tmp_path / "taken" / "run"):
        with pytest.raises(StoreError, match=r"taken is a file where a directory is needed"):
            LocalStore(str(root)).check_writable()


def test_an_output_that_may_not_be_written_says_so(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.raises(StoreError, match=rf"output {store.root}: Permission denied"):
        store.check_writable()
