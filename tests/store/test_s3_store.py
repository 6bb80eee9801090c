"""Promise: whatever S3 answers, a commit is decided right: lost answers, conflicts, refusals, long lists."""

from __future__ import annotations

import multiprocessing
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto.s3.models import s3_backends

from tests.s3_server import S3Bucket
from vidseg_core.store import CommitConflict, StoreError, commit_part, open_store
from vidseg_core.store.s3_store import S3Store


class _Raw:
    """The body of a made-up HTTP answer."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Any:
        yield self._body


def _answer(status: int, code: str) -> AWSResponse:
    body = f"<Error><Code>{code}</Code><Message>made up</Message></Error>".encode()
    return AWSResponse("http://test", status, {}, _Raw(body))


def _intercept(store: S3Store, answers: list[Any]) -> None:
    """Let the next puts be answered by `answers`: None passes the request on, a callable makes the answer."""

    def handler(request: Any, **_: Any) -> AWSResponse | None:
        answer = answers.pop(0) if answers else None
        return answer() if answer else None

    store.client.meta.events.register("before-send.s3.PutObject", handler)


@pytest.fixture
def store(s3: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", s3.bucket)  # a client of its own, whose requests we may intercept
    store = open_store(s3.url + "/run")
    assert isinstance(store, S3Store)
    return store


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


def test_a_put_whose_answer_was_lost_is_told_by_its_digest(store: S3Store, s3: S3Bucket) -> None:
    def arrives_but_answer_is_lost() -> AWSResponse:
        boto3.client("s3").put_object(Bucket=s3.bucket, Key="run/p", Body=b"mine")
        return _answer(503, "SlowDown")

    _intercept(store, [arrives_but_answer_is_lost])
    assert not commit_part(store, "p", b"mine").created
    assert store.get("p") == b"mine"


def test_a_commit_that_finds_other_bytes_after_a_retry_is_a_conflict(store: S3Store, s3: S3Bucket) -> None:
    def another_was_faster() -> AWSResponse:
        boto3.client("s3").put_object(Bucket=s3.bucket, Key="run/p", Body=b"theirs")
        return _answer(500, "InternalError")

    _intercept(store, [another_was_faster])
    with pytest.raises(CommitConflict):
        commit_part(store, "p", b"mine")


def test_a_conflict_with_a_put_under_way_is_asked_again(store: S3Store) -> None:
    def conflict() -> AWSResponse:
        return _answer(409, "ConditionalRequestConflict")

    _intercept(store, [conflict, conflict, None])
    assert store.put_if_absent("p", b"mine")


def test_a_conflict_that_never_ends_is_an_error(store: S3Store) -> None:
    _intercept(store, [lambda: _answer(409, "ConditionalRequestConflict")] * 20)
    with pytest.raises(StoreError, match="stays in conflict"):
        store.put_if_absent("p", b"mine")


def test_a_refused_put_says_which_output_and_why(store: S3Store) -> None:
    _intercept(store, [lambda: _answer(403, "AccessDenied")] * 2)
    with pytest.raises(
        StoreError, match=r"output s3://bucket-\w+/run: access denied \(PutObject: AccessDenied\)"
    ):
        store.put_if_absent("p", b"")
    with pytest.raises(StoreError, match="access denied"):
        store.check_writable()


def test_a_missing_bucket_is_named(s3: S3Bucket) -> None:
    store = open_store("s3://no-such-bucket-here/run")
    for call in (store.check_writable, lambda: list(store.list()), lambda: store.put_if_absent("x", b"")):
        with pytest.raises(StoreError, match="bucket no-such-bucket-here does not exist"):
            call()


def test_stores_of_a_process_share_a_client_until_the_environment_changes(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert S3Store("s3://other").client is store.client
    before = store.client
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone-else")
    assert store.client is not before


def test_an_endpoint_that_is_not_there_is_an_error(s3: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"output s3://b/x: cannot use S3: .*127\.0\.0\.1:9"):
        open_store("s3://b/x").check_writable()


@pytest.mark.parametrize(
    ("endpoint", "output", "message"),
    [
        ("not a url", "s3://bucket/x", "Invalid endpoint: not a url"),
        (None, "s3://Not_A_Bucket!/x", "Invalid bucket name"),
        (None, "s3://bucket/../x", "a component is empty or begins with a dot"),
    ],
)
def test_what_cannot_be_an_output_on_s3_is_named(
    s3: S3Bucket, monkeypatch: pytest.MonkeyPatch, endpoint: str | None, output: str, message: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint or s3.endpoint)
    with pytest.raises(StoreError, match=rf"output {output}: .*{message}"):
        open_store(output).check_writable()


def test_missing_credentials_are_named(s3: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="no AWS credentials found"):
        open_store(s3.url).check_writable()


def test_a_service_that_ignores_the_condition_is_found_out(store: S3Store) -> None:
    def drop_condition(params: dict[str, Any], **_: Any) -> None:
        params["headers"].pop("If-None-Match", None)

    store.client.meta.events.register("before-call.s3.PutObject", drop_condition)
    with pytest.raises(StoreError, match="ignores conditional puts"):
        store.check_writable()


def test_a_listing_of_more_than_one_page_is_whole_and_sorted(store: S3Store, s3: S3Bucket) -> None:
    backend = s3_backends["123456789012"]["aws"]
    names = [f"f/{i:05d}" for i in range(2345)]
    for name in reversed(names):
        backend.put_object(s3.bucket, f"run/{name}", b"")
    backend.put_object(s3.bucket, "run/f/", b"")
    backend.put_object(s3.bucket, "runaway/f/1", b"")
    assert [info.key for info in store.list("f/")] == names
    assert [info.key for info in store.list()] == names


def test_another_process_makes_its_own_client(store: S3Store) -> None:
    store.put("x", b"parent")
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(_put_from_child, (store, "x", "y")) == (False, True)
    assert store.get("y") == b"child"


def _put_from_child(store: S3Store, *keys: str) -> tuple[bool, ...]:
    return tuple(store.put_if_absent(key, b"child") for key in keys)
