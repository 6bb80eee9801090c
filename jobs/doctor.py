"""``vidseg doctor``: is this machine ready, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.verbs import DoctorConfig


def run(config: DoctorConfig) -> int:
    """Run the checks and print what they found."""
    from vidseg_core.doctor import run_doctor

    return run_doctor(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("doctor", DoctorConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
