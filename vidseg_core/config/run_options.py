"""What the verbs that run on Ray check alike."""

from __future__ import annotations

from typing import Protocol

from vidseg_core.config.errors import check_int

STORE_MB = 2_000
"""Memory for frames under way without ``--object_store_mb``: so small that its pages are used again and stay
warm."""


class RunOptions(Protocol):
    """The options of a verb about the run itself."""

    @property
    def threads(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def object_store_mb(self) -> int | None: ...
    @property
    def limit(self) -> int | None: ...


def check_run_options(options: RunOptions, unit: str) -> None:
    """`ConfigError` for values out of range; `unit`: what `--limit` counts."""
    check_int("--threads", options.threads, 1)
    check_int("--workers", options.workers, 0)
    check_int("--seed", options.seed, 0, 2**63 - 1)
    if options.object_store_mb is not None:
        check_int("--object_store_mb", options.object_store_mb, 128, unit="MB")
    if options.limit is not None:
        check_int("--limit", options.limit, 1, unit=unit)
