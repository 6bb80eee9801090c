"""``vidseg train-policy``: episode tables in, a learned key frame scheduler out."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.train_policy import TrainPolicyConfig


def run(config: TrainPolicyConfig) -> int:
    """Train as `config` says."""
    from vidseg_core.training.policy_job import run_train_policy

    return run_train_policy(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("train-policy", TrainPolicyConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
