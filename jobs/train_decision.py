"""``vidseg train-decision``: episode tables in, a learned key frame scheduler out."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.train_decision import TrainDecisionConfig


def run(config: TrainDecisionConfig) -> int:
    """Train as `config` says."""
    from vidseg_core.training.decision_job import run_train_decision

    return run_train_decision(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("train-decision", TrainDecisionConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
