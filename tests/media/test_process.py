"""Promise: whatever a video does to the decoder, it costs one call: a hang ends at the deadline, a crash is
reported with its last words, the next video is decoded as if nothing had been; nothing stays behind.

What motivated it: hangs inside native code, which no Python timeout reaches.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.media import clips, readers
from vidseg_core.media import (
    DecodeChild,
    DecodeUnit,
    MediaCrash,
    MediaError,
    MediaLimits,
    MediaTimeout,
    VideoIndex,
    child_for_this_process,
    decode_unit,
    decoders_cpu_s,
)
from vidseg_core.plan import plan_segments

READERS = "tests.media.readers:"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.write(tmp_path_factory.mktemp("clips") / "clip.mp4", options=clips.X264)


@pytest.fixture(scope="module")
def poison(clip: Path) -> Path:
    path = clip.with_name("poison.mp4")
    path.write_bytes(clip.read_bytes())
    return path


@contextmanager
def child_with(reader: str = "", **limits: float) -> Iterator[DecodeChild]:
    with DecodeChild(MediaLimits(**limits), reader=READERS + reader if reader else "") as child:  # type: ignore[arg-type]
        yield child


def whole(path: Path, index: VideoIndex) -> DecodeUnit:
    unit = plan_segments(index, segment_frames=0, shard_frames=1, unit_frames=10**6)[0].units[0]
    return unit.decode_unit(str(path), index, height=64, width=96)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int, seconds: float = 20) -> bool:
    stop = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < stop:
        time.sleep(0.02)
    return not is_running(pid)


def test_a_child_that_was_started_early_is_the_one_that_works(clip: Path) -> None:
    with child_with() as child:
        child.start()
        pid = child.pid
        child.start()
        assert child.probe(str(clip)).frames and child.pid == pid
        os.kill(pid or 0, signal.SIGKILL)
        wait_until_gone(pid or 0)
        assert child.probe(str(clip)).frames and child.pid not in (None, pid)


def test_the_child_gives_what_decoding_here_gives(clip: Path) -> None:
    with child_with() as child:
        index = child.probe(str(clip))
        unit = whole(clip, index)
        here = list(decode_unit(unit, shard_frames=8, skip_shards=2))
        for shard, expected in zip(child.decode(unit, 8, skip_shards=2), here, strict=True):
            np.testing.assert_array_equal(shard.frame_index, expected.frame_index)
            np.testing.assert_array_equal(shard.pts_s, expected.pts_s)
            np.testing.assert_array_equal(shard.is_corrupt, expected.is_corrupt)
            np.testing.assert_array_equal(shard.frames_THW3, expected.frames_THW3)
            assert shard.error == expected.error and not shard.frames_THW3.flags.writeable


def test_one_child_serves_many_calls_of_many_sizes(clip: Path) -> None:
    with child_with() as child:
        index = child.probe(str(clip))
        pid = child.pid
        for shard_frames, skip in ((1, 50), (64, 0), (7, 3), (60, 0), (9, 7)):
            numbers = [n for s in child.decode(whole(clip, index), shard_frames, skip) for n in s.frame_index]
            assert numbers == list(range(skip * shard_frames, 60))
        assert child.pid == pid


def test_leaving_a_decode_half_done_leaves_the_child_usable(clip: Path) -> None:
    with child_with() as child:
        index = child.probe(str(clip))
        unit, pid = whole(clip, index), child.pid
        for taken in range(1, 9):
            shards = child.decode(unit, 8)
            for _ in range(taken):
                next(shards)
            shards.close()  # type: ignore[attr-defined]
            assert child.probe(str(clip)).frames == 60
        first, second = child.decode(unit, 8), child.decode(unit, 8)
        next(first)
        assert len(list(second)) == 8
        with pytest.raises(RuntimeError, match="another task"):
            next(first)
        assert child.pid == pid


def test_media_errors_come_through_and_cost_nothing(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with child_with() as child:
        child.probe(str(clip))
        pid = child.pid
        for path, reason in ((tmp_path / "empty.mp4", "empty_file"), (tmp_path / "none.mp4", "not_found")):
            with pytest.raises(MediaError) as caught:
                child.probe(str(path))
            assert caught.value.reason == reason and str(path) in str(caught.value)
        assert child.probe(str(clip)).frames == 60 and child.pid == pid


def test_a_hang_ends_at_the_deadline(clip: Path) -> None:
    with child_with("Hangs", deadline_s=0.5) as child:
        for _ in range(2):
            with pytest.raises(MediaTimeout) as caught:
                child.probe(str(clip))
            assert caught.value.reason == "decode_timeout" and "0.5 s" in str(caught.value)
            assert child.pid is None


@pytest.mark.parametrize(
    ("reader", "error"), [("hang_in_second_shard", MediaTimeout), ("segfault_in_second_shard", MediaCrash)]
)
def test_poison_costs_its_own_call_only(
    reader: str, error: type[MediaError], clip: Path, poison: Path
) -> None:
    with child_with(reader, deadline_s=1.0) as child:
        index = child.probe(str(poison))
        shards = child.decode(whole(poison, index), 8)
        np.testing.assert_array_equal(next(shards).frame_index, range(8))
        dead = child.pid
        with pytest.raises(error):
            list(shards)
        assert dead is not None and wait_until_gone(dead)
        assert sum(len(shard) for shard in child.decode(whole(clip, index), 8)) == 60


def test_a_crash_is_reported_with_signal_and_last_words(clip: Path) -> None:
    with child_with("Segfaults") as child, pytest.raises(MediaCrash) as caught:
        child.probe(str(clip))
    assert caught.value.reason == "decode_crash"
    assert "signal 11" in str(caught.value) and "about to fail" in str(caught.value)


def test_an_error_is_its_last_line_however_long_its_traceback_is(clip: Path) -> None:
    with child_with("Raises") as child, pytest.raises(MediaCrash) as caught:
        child.probe(str(clip))
    assert str(caught.value).endswith("died (exit code 1: ValueError: by order of the test)")


def test_a_flood_on_stderr_does_not_block(clip: Path) -> None:
    with child_with("Chatty", deadline_s=30) as child, pytest.raises(MediaCrash) as caught:
        child.probe(str(clip))
    assert "exit code 7" in str(caught.value) and "line 19999" in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_memory_is_limited(clip: Path) -> None:
    with child_with("TakesAllMemory", memory_bytes=256 << 20) as child, pytest.raises(MediaError) as caught:
        child.probe(str(clip))
    assert caught.value.reason == "too_large"


def test_a_reader_that_breaks_the_contract_is_a_crash_and_no_hang(clip: Path) -> None:
    with child_with("too_few", deadline_s=20) as child:
        index = child.probe(str(clip))
        with pytest.raises(MediaCrash):
            list(child.decode(whole(clip, index), 8))
    with child_with("no_such_reader") as child, pytest.raises(MediaCrash, match="no_such_reader"):
        child.probe(str(clip))


def test_a_custom_reader_may_bring_its_own_memory(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEG_MEDIA_READER", READERS + "constant")
    with DecodeChild() as child:
        index = child.probe(str(clip))
        for shard in child.decode(whole(clip, index), 25):
            assert shard.frames_THW3.shape[1:] == (64, 96, 3)
            np.testing.assert_array_equal(shard.frames_THW3[:, 5, 5, 1], shard.frame_index)


def test_slow_is_not_hung_and_decoding_runs_at_most_one_shard_ahead(clip: Path) -> None:
    with child_with("slow", deadline_s=5) as child:
        index = child.probe(str(clip))
        kept = []
        for shard in child.decode(whole(clip, index), 12):
            kept.append((shard.frames_THW3, shard.frames_THW3.copy()))
            time.sleep(0.15)
            np.testing.assert_array_equal(*kept[-1])
        assert len(kept) == 5


def test_cpu_seconds_are_those_of_the_child_and_its_waiting_is_none(clip: Path) -> None:
    with child_with("slow") as child:
        index, before = child.probe(str(clip)), decoders_cpu_s()
        spent = [shard.cpu_s for shard in child.decode(whole(clip, index), 12)]
    assert len(spent) == 5 and all(0 <= seconds for seconds in spent)
    assert 0 < sum(spent) < 5 * readers.PAUSE_S
    assert decoders_cpu_s() - before == pytest.approx(sum(spent))


def test_a_child_killed_while_idle_is_replaced_without_a_word(clip: Path) -> None:
    with child_with() as child:
        child.probe(str(clip))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        assert wait_until_gone(child.pid)
        assert child.probe(str(clip)).frames == 60


def test_the_thread_that_started_the_child_may_end(clip: Path) -> None:
    """The parent-death signal of Linux is about threads: a pool thread must not take the child along."""
    with child_with() as child:
        thread = threading.Thread(target=child.probe, args=(str(clip),))
        thread.start()
        thread.join()
        pid = child.pid
        time.sleep(0.1)
        assert child.probe(str(clip)).frames == 60 and child.pid == pid


PARENT = """
import sys, threading
from vidseg_core.media import DecodeChild, MediaLimits
child = DecodeChild(MediaLimits(deadline_s=300), reader=sys.argv[2])
if sys.argv[2]:
    threading.Thread(target=child.probe, args=(sys.argv[1],), daemon=True).start()
else:
    child.probe(sys.argv[1])
while child.pid is None:
    pass
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("reader", ["", READERS + "Hangs"], ids=["idle", "hanging"])
def test_the_child_dies_with_its_parent(reader: str, clip: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(clip), reader],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout is not None and parent.stdin is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.wait()
    assert wait_until_gone(pid)
    parent.stdin.close()
    parent.stdout.close()


def pipes_and_memory() -> list[str]:
    """What a decode process needs of this one; sockets and files of others (a Ray, a server) come and go."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [link for link in found if link.startswith(("pipe:", "/memfd:vidseg"))]


def test_two_hundred_probes_leave_no_descriptor(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video at all\n" * 99)
    with child_with() as child:

        def open_files() -> tuple[int, int]:
            return len(pipes_and_memory()), len(os.listdir(f"/proc/{child.pid}/fd"))

        child.probe(str(clip))
        before = open_files()
        for number in range(200):
            try:
                child.probe(str(clip if number % 4 else tmp_path / "text.mp4"))
            except MediaError as error:
                assert error.reason == "not_a_video"
        assert open_files() == before


def test_children_come_and_go_without_a_trace(clip: Path) -> None:
    before = len(pipes_and_memory())
    for reader in ("Segfaults", "", "Segfaults"):
        with child_with(reader) as child:
            try:
                child.probe(str(clip))
            except MediaCrash:
                pass
    assert len(pipes_and_memory()) == before


def test_one_child_for_each_process() -> None:
    first = child_for_this_process(MediaLimits(deadline_s=50))
    assert child_for_this_process(MediaLimits(deadline_s=50)) is first
    other = child_for_this_process(MediaLimits(deadline_s=60))
    assert other is not first and first.pid is None
    other.close()


def test_starting_needs_neither_torch_nor_ray() -> None:
    heavy = {"torch", "ray", "boto3", "pyarrow", "cv2"}
    code = f"import sys, vidseg_core.media.child; print({heavy} & set(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"
