"""``vidseg report``: one page with curves, timelines, masks and tables."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.report import ReportConfig


def run(config: ReportConfig) -> int:
    """Write the page that `config` asks for."""
    from vidseg_core.report.build import run_report

    return run_report(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("report", ReportConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
