"""``vidseg VERB ...``: finds the verb in the table and hands the rest of the command line over."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from vidseg_core import __version__
from vidseg_core.cli.next_command import next_command
from vidseg_core.cli.runner import run_verb
from vidseg_core.cli.utf8 import begin_again_in_utf8
from vidseg_core.cli.verbs import VERBS
from vidseg_core.kit.interrupts import end_with
from vidseg_core.kit.progress import Reporter

__all__ = ["main", "main_of"]


def usage() -> str:
    """The list of verbs."""
    verbs = "\n".join(f"  {name:15} {verb.summary}" for name, verb in VERBS.items())
    codes = "exit codes: 0 all done, 1 failed, 2 bad usage, 3 finished with some videos quarantined"
    return f"usage: vidseg VERB [options]   (vidseg VERB --help for the options)\n\n{verbs}\n\n{codes}\n"


Ends = Callable[[int], Any]
"""What ends a process with an exit code."""


def main(argv: Sequence[str] | None = None, *, ends: Ends = end_with) -> int:
    """Run ``vidseg`` with `argv` and return the exit code; None: the process's own, which `ends` so."""
    if argv is None:
        begin_again_in_utf8()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] in (["--version"], ["-V"]):
        print(f"vidseg {__version__}")
        return 0
    if arguments[:1] in (["--help"], ["-h"], ["help"]):
        print(usage(), end="")
        return 0
    if not arguments:
        print(usage(), end="", file=sys.stderr)
        return 2
    verb = arguments[0]
    if verb not in VERBS:
        from vidseg_core.config.errors import nearest

        print(f"vidseg: there is no verb {verb!r}{nearest(verb, VERBS)}\n", file=sys.stderr)
        print(usage(), end="", file=sys.stderr)
        return 2
    return _run(verb, arguments[1:], ends if argv is None else None)


def main_of(verb: str) -> Callable[..., int]:
    """The entry point of one verb: words (None: the process's own) in, exit code out."""

    def main_of_verb(argv: Sequence[str] | None = None) -> int:
        return _run(verb, *((sys.argv[1:], end_with) if argv is None else (argv, None)))

    return main_of_verb


def _run(name: str, words: Sequence[str], ends: Ends | None) -> int:
    verb, typed, command = VERBS[name], list(words), []
    words = typed
    if verb.takes_command and "--" in words:
        cut = words.index("--")
        words, command = words[:cut], words[cut + 1 :]
    more = [command] if verb.takes_command else []

    def run(config: Any, *child: Any) -> int:
        with Reporter(config.log).phase("loading torch", at_once=verb.imports_torch):
            function = verb.function()
        return function(config, *more, *child)

    return run_verb(
        name,
        verb.config_class(),
        run,
        words,
        ends=ends,
        in_child=verb.works_in_child,
        then=lambda config: next_command(name, config, typed),
    )


if __name__ == "__main__":
    raise SystemExit(main())
