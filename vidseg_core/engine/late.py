"""Low latency (LVS section 2.4): a key shows what is carried to it, and N's own result takes effect later.

Model: N on a key takes long, and a stream cannot wait. So at a key the fast track answers, as on any other
frame; what it gives stands in for N's result until N is taken to have finished, `delay` frames later. If the
next key comes before that, the older one is finished first. The delay is a number of frames, never a measured
time: masks do not depend on how fast a machine is. What a propagator carries over from frame to frame ends
there, as it does at a key: what comes after begins with N's result.

Invariant: without a delay nothing here changes anything; the first key of a segment shows N's result at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vidseg_core.engine.state import KeyFrame, SegmentState
from vidseg_core.propagation.gap import Memory


class Late:
    """`delay`: frames; None: N's result is used at once."""

    def __init__(self, delay: int | None) -> None:
        if delay is not None and (int(delay) != delay or delay < 1):
            raise ValueError(f"the delay of a key must be a whole number of at least 1 frame, not {delay!r}")
        self.delay = delay

    def arrive(self, states: Sequence[SegmentState]) -> None:
        """N is finished on the keys for which it is time."""
        for state in states:
            key = state.key
            if key is not None and key.own_from is not None and state.next_frame >= key.own_from:
                state.carried_over = finish(key, state.carried_over)

    def shows_carried(self, state: SegmentState) -> bool:
        """Does a key that comes now show what is carried to it?"""
        return self.delay is not None and state.key is not None

    def stand_in(self, key: KeyFrame, carried: Any) -> None:
        """Use `carried` in place of N's result on the new key, until that is due."""
        assert self.delay is not None
        key.own, key.carried, key.own_from = key.carried, _whole(carried), key.ordinal + self.delay
        key.kept = None


def finish(key: KeyFrame, memory: Memory) -> Memory:
    """N's result is used from now on; what is carried over from then."""
    if key.own_from is None:
        return memory
    key.carried, key.own, key.own_from, key.kept = key.own, None, None, None
    return {}


def _whole(carried: Any) -> Any:
    """In one piece in memory, as it is after a restore."""
    if isinstance(carried, torch.Tensor):
        return carried.contiguous()
    return tuple(map(_whole, carried)) if isinstance(carried, tuple | list) else carried
