"""``vidseg evaluate``: schedulers and propagators over labelled clips, measured."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.evaluate import EvaluateConfig


def run(config: EvaluateConfig) -> int:
    """Evaluate what `config` names; continues an evaluation that was begun."""
    from vidseg_core.evaluation.job import run_evaluate

    return run_evaluate(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("evaluate", EvaluateConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
