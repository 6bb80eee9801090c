"""The client of S3, and what the AWS SDK leaves to its users: bodies that break off.

Inputs and outputs have one configuration; endpoint, region and credentials come from the ambient AWS chain
(environment, profile, instance role, `AWS_ENDPOINT_URL`) and are never taken as arguments, stored or logged.
Two variables are for inputs alone: `AWS_NO_SIGN_REQUEST=yes` reads public buckets without credentials, and
`AWS_REQUEST_PAYER=requester` those whose reader pays.

The SDK repeats requests. The body of an answer to GetObject it reads later, outside of that, and that of an
error answer too, where an exception of urllib3 comes through as it is.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from typing import Any

__all__ = ["NO_CHECKSUMS_ASKED", "NO_SIGN", "PAYER", "get_whole", "input_client", "s3_client"]

NO_CHECKSUMS_ASKED = "AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required"
"""The same as a variable of the environment, for clients that are not ours to configure."""
NO_SIGN, PAYER = "AWS_NO_SIGN_REQUEST", "AWS_REQUEST_PAYER"
"""Names of variables that other tools know, too (GDAL, for one)."""
INPUT_TIMEOUT_S = 20.0
"""S3 may be silent for so long while inputs are read, before a request is made again."""


def s3_client(*, attempts: int = 6, read_timeout_s: float = 60.0) -> Any:
    """The boto3 client of this process and of the AWS environment of this moment.

    `attempts`: so often a request is made; `read_timeout_s`: so long the service may be silent. Raises
    BotoCoreError, and ValueError for an endpoint that is no address.
    """
    return _client(os.getpid(), _environment(), attempts, read_timeout_s)


def input_client() -> Any:
    """The client that inputs are read with: less patient, since a decoder has a deadline. Raises as above."""
    return _client(
        os.getpid(), _environment(), 4, INPUT_TIMEOUT_S, _chosen(NO_SIGN, "yes"), _chosen(PAYER, "requester")
    )


def _environment() -> bytes:
    ambient = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return hashlib.sha256(repr(ambient).encode("utf-8", "surrogateescape")).digest()


def _chosen(variable: str, value: str) -> bool:
    """Whether a variable has its one value. ValueError for any other."""
    given = os.environ.get(variable, "").strip().lower()
    if given not in ("", "no", value):
        raise ValueError(f"the variable {variable} is {given!r}; it may be {value!r} or not be there")
    return given == value


@lru_cache(maxsize=8)
def _client(
    process: int,
    environment: bytes,
    attempts: int,
    read_timeout_s: float,
    unsigned: bool = False,
    reader_pays: bool = False,
) -> Any:
    """A client takes a fifth of a second to make, so a process shares it; a fork has its own."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    retries: Any = {"mode": "standard", "max_attempts": attempts}
    config = Config(
        signature_version=UNSIGNED if unsigned else None,
        retries=retries,
        connect_timeout=10,
        read_timeout=read_timeout_s,
        max_pool_connections=16,
        request_checksum_calculation="when_required",  # some services refuse checksums in trailers,
        response_checksum_validation="when_required",  # some answer a range with that of the whole object
    )
    client = boto3.Session().client("s3", config=config)
    if reader_pays:
        client.meta.events.register("before-call.s3", _pay)
    return client


def _pay(params: dict[str, Any], **_: Any) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"


def get_whole(client: Any, **where: str) -> dict[str, Any]:
    """The reply of `get_object` with its body as bytes. Raises BotoCoreError, ClientError; a body that breaks
    off is a ResponseStreamingError, ReadTimeoutError or IncompleteReadError, which may pass."""
    from botocore.exceptions import ResponseStreamingError
    from urllib3.exceptions import HTTPError

    try:
        reply = client.get_object(**where)
        return {**reply, "Body": reply["Body"].read()}
    except HTTPError as problem:
        raise ResponseStreamingError(error=problem) from None
