"""``vidseg train-segmenter``: labelled and pseudo-labelled frames in, a net's weights out."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.train_segmenter import TrainSegmenterConfig


def run(config: TrainSegmenterConfig) -> int:
    """Train as `config` says; continues a run that was stopped."""
    from vidseg_core.training.job import run_train_segmenter

    return run_train_segmenter(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("train-segmenter", TrainSegmenterConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
