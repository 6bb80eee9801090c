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


def killed_task(text: str, config: object) -> str:
    """One sentence of what Ray says, in a page, of a task that was ended too often."""
    task, node, figures = _TASK.search(text), _NODE.search(text), _FIGURES.search(text)
    who = f" ({task[1]})" if task else ""
    where = f" on node {node[1]}" if node else ""
    used = f": {figures[1]} of {figures[2]} GB are in use there" if figures else ""
    return (
        f"Ray's memory monitor ended a task{who}{where} each time that it was tried{used}; {advice(config)}"
    )
