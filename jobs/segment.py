"""``vidseg segment``: videos in, a table of masks out."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.segment import SegmentConfig


def run(config: SegmentConfig) -> int:
    """Segment everything that `config` names; continues a run that was stopped."""
    from vidseg_core.calibration.dial import SampleDial
    from vidseg_core.pipeline.job import run_segment

    return run_segment(config, dial=SampleDial() if config.has_dial else None)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("segment", SegmentConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
