"""One decode process for the runs that a process of tests makes: to start one takes as long as a small run.

That a run starts and ends its own is tested in `test_local.py`, on commands (`test_kills.py`), and below
(`tests/media`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from vidseg_core.config.segment import SegmentConfig
from vidseg_core.media import DecodeChild
from vidseg_core.pipeline import stages

_kept: tuple[Any, DecodeChild] | None = None
_lent = False


class _Lent:
    """A decoder that stays when its run ends."""

    def __init__(self, child: DecodeChild) -> None:
        self._child = child

    def close(self) -> None:
        """The next run goes on with it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._child, name)


@contextmanager
def decoder_of(config: SegmentConfig) -> Iterator[DecodeChild]:
    """The one of the run before, if limits and environment were the same. A run inside another has its
    own."""
    global _kept, _lent
    limits = stages.limits_of(config.media)
    if _lent:
        with DecodeChild(limits) as own:
            yield own
        return
    same = (limits, {name: text for name, text in os.environ.items() if name != "PYTEST_CURRENT_TEST"})
    if _kept is None or _kept[0] != same:
        if _kept is not None:
            _kept[1].close()
        _kept = same, DecodeChild(limits)
    _lent = True
    try:
        yield cast(DecodeChild, _Lent(_kept[1]))
    finally:
        _lent = False
