"""The root of a store as an Arrow file system, for readers of pieces (footer, columns, row groups).

Arrow's S3 client knows nothing of boto3: it is handed the endpoint, the region and, if the ambient boto3
chain has them, the credentials of this moment, which we do not keep.
"""

from __future__ import annotations

import os
from typing import Any

from pyarrow import fs

from vidseg_core.aws import NO_CHECKSUMS_ASKED
from vidseg_core.store.errors import StoreError
from vidseg_core.store.local_store import LocalStore
from vidseg_core.store.objects import ObjectStore


def arrow_filesystem(store: ObjectStore) -> fs.FileSystem:
    """An Arrow file system whose paths are the keys of `store`. Credentials that expire are those of now."""
    if isinstance(store, LocalStore):
        return fs.SubTreeFileSystem(_text(store), fs.LocalFileSystem(use_mmap=False))
    from vidseg_core.store.s3_store import S3Store  # imports boto3: not for local runs

    if isinstance(store, S3Store):
        base = f"{store.bucket}/{store.prefix}" if store.prefix else store.bucket
        return fs.SubTreeFileSystem(base, fs.S3FileSystem(**_s3_options(store)))
    raise TypeError(f"no Arrow file system for {store!r}")


def _text(store: LocalStore) -> str:
    """The root as Arrow takes it, in any locale."""
    try:
        return os.fsencode(store.path("x")).decode("utf-8").removesuffix("/x")
    except UnicodeDecodeError:
        raise StoreError(f"{store.root!r}: the name is not valid UTF-8, and Arrow reads no other") from None


def _s3_options(store: Any) -> dict[str, Any]:
    import boto3

    os.environ.setdefault(*NO_CHECKSUMS_ASKED)  # Arrow's client has no option for it
    options: dict[str, Any] = {"retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=6)}
    session = boto3.Session()
    credentials = session.get_credentials()
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        options |= {"access_key": frozen.access_key, "secret_key": frozen.secret_key}
        options |= {"session_token": frozen.token} if frozen.token else {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        scheme, _, host = endpoint.rstrip("/").rpartition("://")
        options |= {"endpoint_override": host, "scheme": scheme or "https"}
        options["region"] = session.region_name or "us-east-1"
    else:
        options["region"] = fs.resolve_s3_region(store.bucket)
    return options
