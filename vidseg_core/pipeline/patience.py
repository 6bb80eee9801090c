"""What may pass: a failure that says nothing about the video is tried again before it counts.

Invariant: only a verdict on the video itself quarantines it. If the place where videos come from does not
answer (`source_unavailable`: no credentials, an outage), the run ends instead and goes on later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from vidseg_core.media import MediaError
from vidseg_core.pipeline import telemetry

PASSING_REASONS = frozenset({"decode_crash", "unreadable", "source_unavailable"})
"""What may pass: a child killed from outside, a store that was away for a moment."""
ATTEMPTS = 3
PAUSE_S = 1.0
"""Before the second attempt; twice as long before the third."""

Result = TypeVar("Result")


class SourceUnavailable(RuntimeError):
    """The inputs cannot be reached now, whichever video it is; the run can go on later."""


def may_pass(problem: MediaError, attempts: int) -> bool:
    """Whether to try again after so many failed attempts; waits before it says yes.

    Raises `SourceUnavailable` when patience with the source of the videos is over.
    """
    if problem.reason not in PASSING_REASONS:
        return False
    if attempts < ATTEMPTS:
        telemetry.count("retries", what=problem.reason)
        time.sleep(PAUSE_S * attempts)
        return True
    if problem.reason == "source_unavailable":
        raise SourceUnavailable(str(problem))
    return False


def patiently(work: Callable[[], Result]) -> Result:
    """`work()`, again after what may pass; `MediaError` is a verdict, `SourceUnavailable` is none."""
    attempts = 0
    while True:
        try:
            return work()
        except MediaError as problem:
            attempts += 1
            if not may_pass(problem, attempts):
                raise
