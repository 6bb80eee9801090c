"""A video in S3 as a source.

Invariant: an object that changes while it is read is an error, not a mixture (every range is asked for by
ETag).
"""

from __future__ import annotations

import functools
import io
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vidseg_core.aws import get_whole, input_client
from vidseg_core.media.errors import MediaError
from vidseg_core.media.source import BAD_PLACE, neutral_name, stamp_of

BLOCK = 1 << 20
MAX_AHEAD = 8
CACHED_BLOCKS = 24


class S3Source(io.RawIOBase):
    """Range reader with a block cache; grows its read-ahead while reading runs forward.

    Endpoint, region and credentials come from the ambient AWS chain (`AWS_ENDPOINT_URL` too).
    """

    damage: str | None = None

    def __init__(self, uri: str, client: Any = None) -> None:
        super().__init__()
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not bucket or not key:
            raise MediaError("not_found", f"{uri}: expected s3://bucket/key")
        self.uri, self._bucket, self._key = uri, bucket, key
        self.name = neutral_name(key)
        self._given = client
        head = self._call("head_object")
        self.size, self._etag = int(head["ContentLength"]), head["ETag"]
        self._position, self._next_block, self._ahead = 0, 0, 1
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    @property
    def stamp(self) -> str:
        """What `Source.stamp` asks for; reads of another object under this key fail (If-Match)."""
        return stamp_of(self.size, self._etag.strip('"'))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = {0: 0, 1: self._position, 2: self.size}[whence]
        if base + offset < 0:
            return BAD_PLACE
        self._position = base + offset
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        stop = self.size if size < 0 else min(self.size, self._position + size)
        parts = []
        while self._position < stop:
            block = self._block(self._position // BLOCK)
            start = self._position % BLOCK
            part = block[start : start + stop - self._position]
            parts.append(part)
            self._position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._fetch(number)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, number: int) -> None:
        """One ranged GET of 1 block, doubled up to `MAX_AHEAD` blocks while reads follow one another."""
        self._ahead = min(MAX_AHEAD, self._ahead * 2) if number == self._next_block else 1
        start = number * BLOCK
        stop = min(self.size, start + self._ahead * BLOCK)
        data = self._call("get_object", Range=f"bytes={start}-{stop - 1}", IfMatch=self._etag)["Body"]
        if len(data) != stop - start:
            raise MediaError("unreadable", f"{self.uri}: S3 returned {len(data)} of {stop - start} bytes")
        for offset in range(0, len(data), BLOCK):
            self._blocks[number + offset // BLOCK] = data[offset : offset + BLOCK]
        self._next_block = number + self._ahead
        while len(self._blocks) > CACHED_BLOCKS:
            self._blocks.popitem(last=False)

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
