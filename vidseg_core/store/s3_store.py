"""Objects in an S3 bucket, or in any service that speaks its API with conditional puts.

Put-if-absent is one `PutObject` with `If-None-Match: *`: S3 answers 412 if the key exists (some services 304,
which HTTP means for reads) and 409 if another conditional put of the key is under way (then we ask again, and
learn who won). The SDK repeats a put whose answer was lost; if the first one had arrived, the repetition is
answered 412 although *we* wrote the object.
So `False` means "it is there", and `commit_part` compares digests to learn whether it is ours.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from vidseg_core.aws import get_whole, s3_client
from vidseg_core.store.errors import StoreError
from vidseg_core.store.keys import STATE_PREFIX, ObjectInfo, check_key

IS_THERE = (304, 412)
"""What services answer to a conditional put of a key that exists."""
_CONFLICT_TRIES = 8
READ_TIMEOUT_S = 60.0
"""Seconds that S3 may be silent before a request is made again."""
_MISSING = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {"403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_AGAIN = retry(
    retry=retry_if_exception_type((IncompleteReadError, ReadTimeoutError, ResponseStreamingError)),
    stop=stop_after_attempt(5),
    wait=wait_random_exponential(multiplier=0.1, max=5.0),
    reraise=True,
)


class S3Store:
    """`ObjectStore` on `s3://bucket/prefix`. Safe to share between threads, to pickle and to fork."""

    def __init__(self, root: str) -> None:
        bucket, _, prefix = root.removeprefix("s3://").partition("/")
        if not bucket:
            raise StoreError(f"output {root}: no bucket named (use s3://bucket/prefix)")
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        try:
            check_key(self.prefix or "root")
        except ValueError as error:
            raise StoreError(f"output {root}: {error}") from None
        self.root = f"s3://{bucket}/{self.prefix}".rstrip("/")

    def __repr__(self) -> str:
        return f"S3Store({self.root!r})"

    @property
    def client(self) -> Any:
        """The boto3 client of this process and of the AWS environment of this moment."""
        try:
            return s3_client(read_timeout_s=READ_TIMEOUT_S)
        except ValueError as error:
            raise StoreError(f"output {self.root}: cannot use S3: {error} (see AWS_ENDPOINT_URL)") from error

    def put_if_absent(self, key: str, data: bytes) -> bool:
        for attempt in range(_CONFLICT_TRIES):
            try:
                self.client.put_object(Bucket=self.bucket, Key=self._full(key), Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status in IS_THERE:
                    return False
                if status != 409:
                    raise self._explained(error) from error
                time.sleep(random.uniform(0.5, 1.0) * 0.05 * 2**attempt)
            except BotoCoreError as error:
                raise self._explained(error) from error
        raise StoreError(f"output {self.root}: {key} stays in conflict with another conditional put of it")

    def put(self, key: str, data: bytes) -> None:
        with self._explain():
            self.client.put_object(Bucket=self.bucket, Key=self._full(key), Body=data)

    def get(self, key: str) -> bytes:
        with self._explain(key):
            return self._read(key)

    @_AGAIN
    def _read(self, key: str) -> bytes:
        """The SDK repeats requests, not bodies that break off."""
        return get_whole(self.client, Bucket=self.bucket, Key=self._full(key))["Body"]

    def exists(self, key: str) -> bool:
        try:
            with self._explain(key):
                self.client.head_object(Bucket=self.bucket, Key=self._full(key))
            return True
        except FileNotFoundError:
            return False

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        base = f"{self.prefix}/" if self.prefix else ""
        with self._explain():
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=base + prefix):
                for entry in page.get("Contents", ()):
                    key = entry["Key"][len(base) :]
                    if key and not key.endswith("/"):  # folder markers of consoles
                        yield ObjectInfo(key, entry["Size"], entry["LastModified"].timestamp())

    def delete(self, key: str) -> None:
        with self._explain():
            self.client.delete_object(Bucket=self.bucket, Key=self._full(key))

    def check_writable(self) -> None:
        probe = f"{STATE_PREFIX}write-check-{secrets.token_hex(8)}"  # two drivers may check at the same time
        self.put(probe, b"")
        if self.put_if_absent(probe, b""):
            raise StoreError(
                f"output {self.root}: this S3 service ignores conditional puts (If-None-Match), "
                "so two writers could overwrite each other; use a service that honours them"
            )
        with suppress(StoreError):  # a writer need not be allowed to delete; the empty probe harms nobody
            self.delete(probe)

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    @contextmanager
    def _explain(self, key: str | None = None) -> Iterator[None]:
        """Turn errors of the service into `StoreError`; with `key`, "not found" into FileNotFoundError."""
        try:
            yield
        except ClientError as error:
            if key is not None and error.response["Error"]["Code"] in _MISSING:
                raise FileNotFoundError(2, f"no such object in {self.root}", key) from None
            raise self._explained(error) from error
        except BotoCoreError as error:
            raise self._explained(error) from error

    def _explained(self, error: ClientError | BotoCoreError) -> StoreError:
        if isinstance(error, NoCredentialsError):
            reason = "no AWS credentials found (set AWS_PROFILE, AWS_ACCESS_KEY_ID or use an instance role)"
        elif not isinstance(error, ClientError):
            reason = f"cannot use S3: {' '.join(str(error).split())}"
        else:
            code, operation = error.response["Error"]["Code"], error.operation_name
            if code == "NoSuchBucket":
                reason = f"bucket {self.bucket} does not exist"
            elif code in _EXPIRED:
                reason = f"the AWS credentials have expired ({operation}: {code}); renew them"
            elif code in _REFUSED:
                reason = f"access denied ({operation}: {code})"
            else:
                reason = f"{operation} failed: {code} {error.response['Error'].get('Message', '')}".rstrip()
        return StoreError(f"output {self.root}: {reason}")
