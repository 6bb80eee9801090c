"""``vidseg inspect``: frames of a run, why they were keys or not, sheets, clips, exports."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.inspect import InspectConfig


def run(config: InspectConfig) -> int:
    """Show and export what `config` asks for."""
    from vidseg_core.inspection.job import run_inspect

    return run_inspect(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("inspect", InspectConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
