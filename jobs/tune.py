"""``vidseg tune``: search spaces and episode tables in, a Pareto front of schedulers out."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.tune import TuneConfig


def run(config: TuneConfig) -> int:
    """Search as `config` says."""
    from vidseg_core.search.job import run_tune

    return run_tune(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("tune", TuneConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
