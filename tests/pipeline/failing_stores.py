"""Outputs that fail on purpose, in the driver and in Ray's workers alike."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import boto3

from vidseg_core.store.local_store import LocalStore
from vidseg_core.store.s3_store import S3Store


class FullDisk(LocalStore):
    """A disk that is full after three parts: the kernel says so (`/dev/full`), not the test."""

    most = 3

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """The local store's, while there is room."""
        if key.startswith("frames/") and sum(1 for _ in self.list("frames/")) >= self.most:
            with self._explain(writing=key), open("/dev/full", "wb") as disk:
                disk.write(data)
                disk.flush()
        return super().put_if_absent(key, data)


class S3Through(S3Store):
    """S3 through another endpoint than the environment's."""

    def __init__(self, root: str, endpoint: str) -> None:
        super().__init__(root)
        self.endpoint = endpoint

    @property
    def client(self) -> Any:
        """One for each process."""
        return _client(self.endpoint)


@lru_cache
def _client(endpoint: str) -> Any:
    return boto3.client("s3", endpoint_url=endpoint)
