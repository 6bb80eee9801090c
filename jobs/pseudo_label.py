"""``vidseg pseudo-label``: a teacher net labels videos for a student to learn from."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.pseudo_label import PseudoLabelConfig


def run(config: PseudoLabelConfig) -> int:
    """Label everything that `config` names; continues a run that was stopped."""
    from vidseg_core.pipeline.job import run_segment

    return run_segment(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("pseudo-label", PseudoLabelConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
