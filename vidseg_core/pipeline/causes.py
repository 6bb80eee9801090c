"""What a worker raised, from under what Ray wraps around it and writes into it."""

from __future__ import annotations

import re

_ADVICE = re.compile(r"\s*Failed to [^\n]*? after \d+/\d+ attempts \(total backoff .*", re.DOTALL)
"""What Ray Data appends to the message of an error that it does not try again."""


def raised(problem: BaseException) -> BaseException:
    """The exception itself: Ray's wrappers are instances of what they wrap, and print a traceback."""
    while (inner := _inside(problem)) is not None and inner is not problem:
        problem = inner
    return problem


def _inside(problem: BaseException) -> BaseException | None:
    cause = getattr(problem, "cause", None)
    if isinstance(cause, BaseException):
        return cause
    return problem.__cause__ if type(problem).__module__.startswith("ray.") else None


def message(problem: BaseException) -> str:
    """What the exception says."""
    return _ADVICE.sub("", str(problem))
