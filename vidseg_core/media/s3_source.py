"""A video in S3 as a source.

Invariant: an object that changes while it is read is an error, not a mixture (every range is asked for by
ETag).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vidseg_core.aws import get_whole, input_client
from vidseg_core.media.errors import MediaError
from vidseg_core.media.range_source import RangeSource
from vidseg_core.media.source import stamp_of


class S3Source(RangeSource):
    """Endpoint, region and credentials come from the ambient AWS chain (`AWS_ENDPOINT_URL` too)."""

    def __init__(self, uri: str, client: Any = None) -> None:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not bucket or not key:
            raise MediaError("not_found", f"{uri}: expected s3://bucket/key")
        self.uri, self._bucket, self._key, self._given = uri, bucket, key, client
        head = self._call("head_object")
        self._etag = head["ETag"]
        super().__init__(uri, int(head["ContentLength"]))

    @property
    def stamp(self) -> str:
        """What `Source.stamp` asks for; reads of another object under this key fail (If-Match)."""
        return stamp_of(self.size, self._etag.strip('"'))

    def _range(self, start: int, stop: int) -> bytes:
        return self._call("get_object", Range=f"bytes={start}-{stop - 1}", IfMatch=self._etag)["Body"]

    def _call(self, operation: str, **arguments: str) -> dict[str, Any]:
        """The reply of an operation on the object, the body of an answer as bytes."""
        with asking_s3(self.uri):
            client = self._given or input_client()
            ask = functools.partial(get_whole, client) if operation == "get_object" else client.head_object
            return ask(Bucket=self._bucket, Key=self._key, **arguments)


@contextmanager
def asking_s3(uri: str) -> Iterator[None]:
    """Turns errors of the service into MediaError, with the address in front."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in ("404", "NoSuchKey", "NoSuchBucket", "NotFound"):
            raise MediaError("not_found", f"{uri}: no such object ({code})") from None
        if code in ("412", "PreconditionFailed"):
            raise MediaError("changed", f"{uri}: the object changed while it was read") from None
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        passing = code in _NOT_THE_OBJECT or status >= 500 or status == 429
        reason = "source_unavailable" if passing else "unreadable"
        raise MediaError(reason, f"{uri}: S3 refuses it ({code or error})") from None
    except (BotoCoreError, OSError, ValueError) as error:
        raise MediaError("source_unavailable", f"{uri}: {error}") from None


_NOT_THE_OBJECT = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InternalError",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "RequestTimeout",
        "ServiceUnavailable",
        "SignatureDoesNotMatch",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TokenRefreshRequired",
    }
)
"""Answers that say nothing about the object: credentials that ran out, a service in trouble."""
