"""``vidseg build-episodes``: clips in, tables out that schedulers learn from."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.runner import run_verb
from vidseg_core.config.build_episodes import BuildEpisodesConfig


def run(config: BuildEpisodesConfig) -> int:
    """Build the tables that `config` names; continues a set that was begun."""
    from vidseg_core.episodes.job import run_build_episodes

    return run_build_episodes(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb; returns the exit code."""
    return run_verb("build-episodes", BuildEpisodesConfig, run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
