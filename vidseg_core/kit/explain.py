"""What went wrong, in a sentence: what a worker raised, without what Ray wraps around it and writes into it;
processes that the memory monitor of Ray has ended; a name that this locale cannot write."""

from __future__ import annotations

import re

_RAYS_ADVICE = re.compile(r"\s*Failed to [^\n]*? after \d+/\d+ attempts \(total backoff .*", re.DOTALL)
"""What Ray Data appends to the message of an error that it does not try again."""
_OPTIONS = (
    "workers",
    "decoders",
    "lanes",
    "shard_frames",
    "batch",
    "batch_size",
    "key_batch",
    "object_store_mb",
)
"""Options that take memory, the strongest first."""
_FIGURES = re.compile(r"([\d.]+) ?GB(?: used)? ?/ ?([\d.]+) ?GB")
_NODE = re.compile(r"IP: ([^,\s)]+)")
_TASK = re.compile(r"(?:task name|name)=([^,\s)]+)")


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
    return _RAYS_ADVICE.sub("", str(problem))


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


def advice(config: object) -> str:
    """What a person can do, with the options that the verb of ``config`` has."""
    names = [f"--{name}" for name in _OPTIONS if hasattr(config, name)]
    options = f"lower {', '.join(names)}, or " if names else ""
    return f"{options}give the machine more memory (and look at what else runs on it)"


def is_kill(text: str) -> bool:
    """Whether Ray speaks of its memory monitor."""
    return "running low on memory" in text


def killed(text: str, config: object) -> str:
    """One sentence of what Ray says, in a page, when it gives up what its memory monitor ends."""
    task, node, figures = _TASK.search(text), _NODE.search(text), _FIGURES.search(text)
    who = f" ({task[1]})" if task else ""
    where = f" on node {node[1]}" if node else ""
    used = f" ({figures[1]} of {figures[2]} GB are in use there)" if figures else ""
    what = f"a worker{who}{where}{used}, and each that took its place"
    return f"Ray's memory monitor ended {what}; {advice(config)}"


def died() -> str:
    """One sentence for workers that die of something else."""
    return (
        "the worker process of a task died, and each that took its place: a crash of native code, or the "
        "kernel ended it because memory ran out"
    )
