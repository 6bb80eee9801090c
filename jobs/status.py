"""``vidseg status``: where a run stands, from its output alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.verbs import StatusConfig


def run(config: StatusConfig) -> int:
    """Print the status of the run; 1 if something that was committed is missing or damaged."""
    from vidseg_core.pipeline.status import as_json, as_text, read_status

    status = read_status(config.run, verify=config.verify)
    print(as_json(status) if config.log == "json" else as_text(status))
    return 0 if status.sound else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code. ``vidseg status OUTPUT`` is ``--run OUTPUT``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and not arguments[0].startswith("-"):
        arguments.insert(0, "--run")
    return run_verb("status", StatusConfig, run, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
