"""Finding videos in S3: listing in pages, looking up, reading lists.

Model: plain functions over the boto3 client of the ambient AWS chain.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from vidseg_core.aws import NO_SIGN, PAYER, get_whole, input_client
from vidseg_core.plan.errors import InputError

Found = tuple[str, int, str]
"""(uri, bytes, etag)"""

_NOT_FOR_US = (400, 403, 404)
"""HTTP answers about the object and its reader: in another region or encrypted, forbidden, absent."""
WILD = re.compile(r"[*?\[]")
"""Marks a pattern, unless there is something of that very name."""
PAGE_SIZE = 1000
"""Objects asked for in one listing request."""


def find(spec: str, wanted: Callable[[str], bool]) -> Iterator[Found]:
    """The object `spec`, or the `wanted` objects below it, or else those that it matches, in key order.

    Raises InputError if the bucket cannot be listed.
    """
    bucket, key = split(spec)
    one = _head(spec) if key and not key.endswith("/") else None
    if one is not None:
        yield (spec, *one)
        return
    is_pattern = WILD.search(key) is not None
    for found in _list(spec, bucket, key):
        if wanted(found[0]):
            is_pattern = False
            yield found
    if is_pattern:
        for found in _list(spec, bucket, WILD.split(key)[0]):
            if fnmatch.fnmatchcase(split(found[0])[1], key) and wanted(found[0]):
                yield found


def heads(uris: Sequence[str]) -> dict[str, tuple[int, str]]:
    """(bytes, etag) of each object; (0, "missing") where there is none or it may not be seen."""
    if not uris:
        return {}
    with ThreadPoolExecutor(16) as pool:
        return {uri: head or (0, "missing") for uri, head in zip(uris, pool.map(_head, uris), strict=True)}


def read(uri: str) -> bytes:
    """The bytes of an object. Raises InputError."""
    bucket, key = split(uri)
    with _Errors(uri):
        return get_whole(input_client(), Bucket=bucket, Key=key)["Body"]


def beside(uri: str, entry: str, spec: str) -> str:
    """What a relative `entry` of the list at `uri` names. Raises InputError if that is in no bucket."""
    scheme, _, place = uri.partition("://")
    bucket, _, key = place.partition("/")
    pieces = key.split("/")[:-1]
    for piece in entry.split("/"):
        if piece == ".." and not pieces:
            raise InputError(f"{spec}: entry {entry} leads out of the bucket")
        pieces = pieces[:-1] if piece == ".." else pieces if piece == "." else [*pieces, piece]
    return f"{scheme}://{bucket}/{'/'.join(pieces)}"


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// address. Raises InputError if there is no bucket."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise InputError(f"{uri}: expected s3://bucket/key or s3://bucket/prefix")
    return bucket, key


def _list(spec: str, bucket: str, prefix: str) -> Iterator[Found]:
    with _Errors(spec):
        for page in (
            input_client()
            .get_paginator("list_objects_v2")
            .paginate(Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": PAGE_SIZE})
        ):
            for item in page.get("Contents", ()):
                yield f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"].strip('"')


def _head(uri: str) -> tuple[int, str] | None:
    """None: there is no such object, or it may not be looked at (its reader will say so)."""
    from botocore.exceptions import ClientError

    bucket, key = split(uri)
    with _Errors(uri):
        try:
            reply = input_client().head_object(Bucket=bucket, Key=key)
        except ClientError as problem:
            if problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in _NOT_FOR_US:
                raise  # an S3 that fails says nothing about the object
            return None
        return reply["ContentLength"], reply["ETag"].strip('"')


class _Errors:
    """Turns errors of boto3 into InputError with the address in front."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        if isinstance(error, ClientError):
            detail = error.response.get("Error", {})
            pays = f" ({PAYER}=requester is for buckets whose reader pays)"
            hint = pays if detail.get("Code") == "AccessDenied" else ""
            raise InputError(
                f"{self.uri}: S3 says {detail.get('Code')}: {detail.get('Message')}{hint}"
            ) from None
        if isinstance(error, NoCredentialsError):
            raise InputError(
                f"{self.uri}: no AWS credentials ({NO_SIGN}=yes is for public buckets)"
            ) from None
        if isinstance(error, (BotoCoreError, ValueError)) and not isinstance(error, InputError):
            raise InputError(f"{self.uri}: {error}") from None
