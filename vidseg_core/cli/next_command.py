"""The command to type after one that went well: every verb ends with it.

It is `Verb.next` with the verb's options in their places, by name; what only the person knows (a video) stays
in capitals, and credentials in an address are stars.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from vidseg_core.cli.verbs import VERBS
from vidseg_core.config.cli import take_option
from vidseg_core.config.schema import redact, to_dict

__all__ = ["next_command"]


def next_command(verb: str, config: Any, words: Sequence[str]) -> str:
    """What to type after ``vidseg VERB WORDS``."""
    cut = words.index("--") if VERBS[verb].takes_command and "--" in words else len(words)
    if getattr(config, "dry_run", False):
        real = [word for word in words[:cut] if word.replace("_", "-") != "--dry-run"]
        if len(real) == cut:  # it is said in a file
            real.append("--no-dry-run")
        return shlex.join(map(redact, ["vidseg", verb, *real, *words[cut:]]))
    values = to_dict(config)
    if cut < len(words):  # it is that command's output which counts
        found, _ = take_option(words[cut + 1 :], "output")
        values["output"] = found[-1] if found else "OUTPUT"
    return VERBS[verb].next.format_map({name: shlex.quote(str(value)) for name, value in values.items()})
