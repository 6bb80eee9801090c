"""``vidseg train-flow``: clips in, a flow net's weights out."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.train_flow import TrainFlowConfig


def run(config: TrainFlowConfig) -> int:
    """Train as `config` says; continues a run that was stopped."""
    from vidseg_core.training.flow_job import run_train_flow

    return run_train_flow(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("train-flow", TrainFlowConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
