"""``vidseg train-planner``: episode tables in, a scheduler that looks ahead out."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.train_planner import TrainPlannerConfig


def run(config: TrainPlannerConfig) -> int:
    """Train as `config` says."""
    from vidseg_core.training.planner_job import run_train_planner

    return run_train_planner(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("train-planner", TrainPlannerConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
