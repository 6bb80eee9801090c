"""``vidseg demo``: generated scenes, several schedulers, one comparison."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.verbs import DemoConfig


def run(config: DemoConfig) -> int:
    """Make the scenes, run the schedulers, print the comparison."""
    from vidseg_core.demo.demo import run_demo

    return run_demo(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("demo", DemoConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
