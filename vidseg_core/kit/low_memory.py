"""What to say when Ray's memory monitor ends processes of ours, and what lowers their need."""

from __future__ import annotations

import re

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
