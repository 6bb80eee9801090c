"""What the AWS SDK leaves to its users: bodies that break off.

The SDK repeats requests. The body of an answer to GetObject it reads later, outside of that, and that of an
error answer too, where an exception of urllib3 comes through as it is.
"""

from __future__ import annotations

from typing import Any


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
