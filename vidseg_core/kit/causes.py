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


def about_a_name(problem: BaseException) -> str | None:
    """One sentence for a name that cannot be written in this locale, or is no text at all; else None."""
    if not isinstance(problem, UnicodeEncodeError):
        return None
    if problem.encoding == "ascii":
        return (
            f"this locale knows ASCII letters only, and {problem.object!r} has others; set LC_ALL=C.UTF-8, "
            "or PYTHONUTF8=1"
        )
    if any("\ud800" <= letter <= "\udfff" for letter in problem.object):
        return f"{problem.object!r} is not valid UTF-8; rename it, or name its folder instead"
    return None
