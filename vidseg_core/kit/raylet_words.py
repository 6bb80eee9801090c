"""What Ray prints of a worker that died, without the page of advice after it.

Ray prints these messages in the driver whatever the log level is, and has no option for it. The name inside
Ray that is used here is pinned by a test.
"""

from __future__ import annotations

import re
from typing import Any

from ray._private import worker

_REST = re.compile(r"(?:\s+(?:Error:|To troubleshoot)|\n).*", re.DOTALL)
_SHOWN = 200


def shorten() -> None:
    """From now on the messages of raylets are one line each."""
    printed = worker.print_to_stdstream
    if getattr(printed, "is_short", False):
        return

    def short(data: Any, *rest: Any, **named: Any) -> None:
        if data.get("pid") == "raylet":
            data = {**data, "lines": [first_words(line) for line in data["lines"]]}
        printed(data, *rest, **named)

    short.is_short = True  # type: ignore[attr-defined]
    worker.print_to_stdstream = short


def first_words(message: str) -> str:
    """What happened, without the advice."""
    return _REST.sub("", message.strip())[:_SHOWN]
