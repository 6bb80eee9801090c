"""``python -m vidseg_core.cli.attempt VERB ...``: a verb for systems that try failed jobs again.

A run that finished with some videos quarantined has its verdict: another attempt on another cluster would
change nothing. Such systems (KubeRay, batch queues) know only 0 and the rest, so exit code 3 becomes 0 here,
and is said.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vidseg_core.cli import main as command
from vidseg_core.config.cli import EXIT_OK, EXIT_QUARANTINED
from vidseg_core.kit.interrupts import end_with

SAID = (
    "vidseg: finished, with videos quarantined (exit code 3); 0 here, as another attempt would change nothing"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``vidseg`` with `argv` (None: the process's own); its exit code, with 0 for 3."""
    code = command.main(argv, ends=lambda code: end_with(_judged(code)))
    if code == EXIT_QUARANTINED:
        print(SAID, file=sys.stderr)
    return _judged(code)


def _judged(code: int) -> int:
    return EXIT_OK if code == EXIT_QUARANTINED else code


if __name__ == "__main__":
    raise SystemExit(main())
