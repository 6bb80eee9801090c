"""What a run asks of whoever chooses its scheduler from the corpus (``--budget``, ``--max_drop``).

The pipeline does not know how that is done; the verb gives it (`calibration.dial`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from vidseg_core.config.errors import check
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.kit.progress import Reporter
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.store.objects import ObjectStore


class Dial(Protocol):
    """Chooses scheduler and threshold of one run. ``net``: digest of N and of the flow net."""

    def check(
        self, config: SegmentConfig, inputs: Sequence[VideoInput], store: ObjectStore, net: str
    ) -> None:
        """Raises `FingerprintMismatch` or `ConfigError` for what a run would refuse."""
        ...

    def say_cost(
        self, config: SegmentConfig, inputs: Sequence[VideoInput], report: Reporter
    ) -> SegmentConfig:
        """Reports what the choice would take here; what would run then, as far as that is known."""
        ...

    def chosen(
        self,
        config: SegmentConfig,
        inputs: Sequence[VideoInput],
        store: ObjectStore,
        net: str,
        report: Reporter,
        on_ray: Callable[[], bool],
    ) -> AbstractContextManager[SegmentConfig]:
        """Inside the block: the configuration that runs. What the choice needed (Ray) stays up until then.

        ``on_ray``: whether the work is to be done there; asked only if there is any.
        """
        ...

    def outcome(
        self,
        config: SegmentConfig,
        store: ObjectStore,
        totals: Mapping[str, Any],
        report: Reporter,
        on_ray: bool,
    ) -> dict[str, Any]:
        """The ``dial`` of run.json: what the run came to beside what was promised."""
        ...

    def closing_lines(self, outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The same as lines of the closing table."""
        ...


def needed(dial: Dial | None, config: SegmentConfig) -> Dial | None:
    """`dial` where the configuration asks for one; `ConfigError` if it does and there is none."""
    if not config.has_dial:
        return None
    option = "--budget" if config.budget is not None else "--max_drop"
    check(
        dial is not None,
        option,
        "`vidseg segment` chooses a scheduler, and so does `vidseg_core.cli.segmenting.run_segment`",
    )
    return dial
