"""Promise: an S3 that stumbles (500, SlowDown, resets, broken bodies, lost answers, conflicts) costs time and
nothing else; one that stays down is named in one sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.s3_faults import FaultyS3, faulty
from tests.store.builders import HEIGHT, WIDTH, put_run
from vidseg_core import aws
from vidseg_core.media import MediaError
from vidseg_core.media.opening import open_source
from vidseg_core.plan import InputError, expand_inputs
from vidseg_core.store import s3_store
from vidseg_core.store.errors import StoreError
from vidseg_core.store.objects import ObjectStore, open_store
from vidseg_core.store.parts import commit_part
from vidseg_core.store.run import open_run


@pytest.fixture
def service(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """An S3 that stumbles; its clients do not wait before they ask again."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with faulty(s3.endpoint) as state:
        monkeypatch.setenv("AWS_ENDPOINT_URL", state.endpoint)
        yield state


@pytest.fixture
def store(s3: Any, service: FaultyS3) -> ObjectStore:
    return open_store(f"{s3.url}/run")


@pytest.mark.parametrize("fault", ["500", "503", "reset"])
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE", "list"])
def test_a_request_that_fails_is_made_again(
    store: ObjectStore, service: FaultyS3, method: str, fault: str
) -> None:
    store.put("a/x", b"one")
    service.script = [("^GET .*list-type" if method == "list" else f"^{method} .*a/y", fault)]
    if method == "PUT":
        store.put("a/y", b"two")
    else:
        store.put("a/y", b"two")
        read = {
            "GET": lambda: store.get("a/y") == b"two",
            "HEAD": lambda: store.exists("a/y"),
            "list": lambda: [info.key for info in store.list("a/")] == ["a/x", "a/y"],
            "DELETE": lambda: store.delete("a/y") is None,
        }
        assert read[method]()
    assert service.done == {fault: 1}
    assert store.exists("a/y") == (method != "DELETE")


def test_a_service_may_say_304_of_a_key_that_exists(store: ObjectStore, service: FaultyS3) -> None:
    service.not_modified = True
    assert store.put_if_absent("x", b"one") and not store.put_if_absent("x", b"two")
    assert store.get("x") == b"one"


def test_a_body_that_breaks_off_is_read_again(store: ObjectStore, service: FaultyS3) -> None:
    data = bytes(range(256)) * 1000
    store.put("x", data)
    service.script = [("^GET", "truncated"), ("^GET", "truncated")]
    assert store.get("x") == data
    assert service.done == {"truncated": 2}


def test_an_error_whose_body_breaks_off_is_read_again(store: ObjectStore, service: FaultyS3) -> None:
    """The SDK reads the body of an error answer to GetObject outside of its own retries."""
    service.script = [("^GET", "truncated"), ("^GET", "truncated")]
    with pytest.raises(FileNotFoundError):
        store.get("absent")
    assert service.done == {"truncated": 2}


def test_bodies_that_always_break_off_are_named(s3: Any, store: ObjectStore, service: FaultyS3) -> None:
    store.put("list.csv", b"uri\na.mp4\n")
    service.chance = lambda request: "truncated" if request.startswith("GET") else None
    for key in ("list.csv", "absent"):
        with pytest.raises(StoreError, match="cannot use S3: .*Connection"):
            store.get(key)
    for name in ("list.csv", "absent.csv"):
        with pytest.raises(InputError, match=rf"run/{name}: .*Connection"):
            expand_inputs([f"{s3.url}/run/{name}"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, service: FaultyS3) -> Iterator[None]:
    """Clients that wait half a second for an answer."""
    monkeypatch.setattr(s3_store, "READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr(aws, "INPUT_TIMEOUT_S", 0.5)
    yield
    service.over.set()


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "list"])
def test_a_request_that_gets_no_answer_is_made_again(
    impatient: None, store: ObjectStore, service: FaultyS3, method: str
) -> None:
    store.put("a/x", b"one")
    service.script = [("^GET .*list-type" if method == "list" else f"^{method} .*a/x", "silent")]
    asked = {
        "PUT": lambda: store.put_if_absent("a/x", b"two") is False,
        "GET": lambda: store.get("a/x") == b"one",
        "HEAD": lambda: store.exists("a/x"),
        "list": lambda: [info.key for info in store.list("a/")] == ["a/x"],
    }
    assert asked[method]() and service.done == {"silent": 1}


def test_a_body_that_stalls_is_read_again(
    impatient: None, s3: Any, store: ObjectStore, service: FaultyS3
) -> None:
    data = bytes(range(256)) * 1000
    store.put("x.mp4", data)
    service.script = [("^GET", "stalled")]
    assert store.get("x.mp4") == data and service.done == {"stalled": 1}


def test_an_input_that_stalls_may_pass(
    impatient: None, s3: Any, store: ObjectStore, service: FaultyS3
) -> None:
    store.put("x.mp4", bytes(300_000))
    video = open_source(f"{s3.url}/run/x.mp4")
    service.script = [("^GET", "stalled")]
    with pytest.raises(MediaError) as caught:
        video.read()
    assert caught.value.reason == "source_unavailable"
    assert video.read() == bytes(300_000)
    video.close()


def test_a_commit_whose_answer_is_lost_is_our_own(store: ObjectStore, service: FaultyS3) -> None:
    service.script = [("^PUT .*part-00000-000000", "lost")]
    key = "frames/video=a/part-00000-000000.parquet"
    commit_part(store, key, b"the bytes")  # told 412 on the repetition, and finds its own digest
    assert store.get(key) == b"the bytes" and service.done == {"lost": 1}


def test_a_conflict_of_conditional_puts_is_settled(store: ObjectStore, service: FaultyS3) -> None:
    service.script = [("^PUT", "409"), ("^PUT", "409")]
    assert store.put_if_absent("x", b"1") is True
    assert store.put_if_absent("x", b"2") is False
    assert store.get("x") == b"1" and service.done == {"409": 2}


def test_a_service_that_stays_down_is_named(store: ObjectStore, service: FaultyS3) -> None:
    service.chance = lambda request: "503"
    with pytest.raises(StoreError, match=r"output s3://.*/run: PutObject failed: SlowDown"):
        store.put("x", b"1")
    with pytest.raises(StoreError, match="SlowDown"):
        store.get("x")


@pytest.mark.parametrize("fault", ["500", "503", "reset"])
def test_inputs_are_read_through_faults(s3: Any, store: ObjectStore, service: FaultyS3, fault: str) -> None:
    data = bytes(range(256)) * 5000
    store.put("clip.mp4", data)
    service.script = [("^GET .*clip", fault), ("^HEAD .*clip", fault)]
    source = open_source(f"{s3.url}/run/clip.mp4")
    assert source.read() == data
    source.close()


def test_an_input_whose_body_breaks_off_says_nothing_about_the_video(
    s3: Any, store: ObjectStore, service: FaultyS3
) -> None:
    store.put("clip.mp4", bytes(300_000))
    service.chance = lambda request: "truncated" if request.startswith("GET") else None
    source = open_source(f"{s3.url}/run/clip.mp4")
    with pytest.raises(MediaError) as caught:
        source.read()
    assert caught.value.reason == "source_unavailable"
    service.chance = lambda request: None
    assert source.read() == bytes(300_000)
    source.close()


@pytest.mark.parametrize("named", ["object", "list"])
@pytest.mark.parametrize("fault", ["500", "503"])
def test_an_s3_that_stays_down_makes_no_video_missing(
    s3: Any,
    store: ObjectStore,
    service: FaultyS3,
    named: str,
    fault: str,
    tmp_path: Path,
) -> None:
    """A run that began with "missing" for a video that is there would be another run's input tomorrow."""
    store.put("clip.mp4", b"12345")
    uri, listing = f"{s3.url}/run/clip.mp4", tmp_path / "list.csv"
    listing.write_text(f"uri\n{uri}\n{s3.url}/run/absent.mp4\n")
    service.chance = lambda request: fault if request.startswith("HEAD") else None
    with pytest.raises(InputError, match=rf"clip.mp4: S3 says {fault}"):
        expand_inputs([uri if named == "object" else str(listing)])
    service.chance = lambda request: None
    there, absent = expand_inputs([str(listing)])
    assert there.size == 5 and absent.stamp == "missing"


def test_a_service_that_answers_ranges_with_the_whole_checksum_works(
    s3: Any, store: ObjectStore, service: FaultyS3
) -> None:
    """The SDK asks for checksums by itself unless told otherwise, and takes such an answer for damage.

    It was told for outputs, not for inputs: the run ended.
    """
    data = bytes(range(256)) * 20_000
    store.put("clip.mp4", data)
    store.put("list.csv", f"uri\n{s3.url}/run/clip.mp4\n".encode())
    put_run(store)
    service.whole_checksums = True
    assert [video.size for video in expand_inputs([f"{s3.url}/run/list.csv"])] == [len(data)]
    source = open_source(f"{s3.url}/run/clip.mp4")
    source.seek(3_000_000)
    assert source.read(5) == data[3_000_000:3_000_005]
    source.close()
    run = open_run(store.root)
    assert len(list(run.rows("a"))) == 30 and run.mask("a", 7).shape == (HEIGHT, WIDTH)
    assert run.frames().to_table(columns=["frame_index"]).num_rows == 90
    assert service.asked_for_checksums == 0
