"""What else of N is used than its results on new keys: its lower part (S_l of LVS section 2.1), once a frame,
for scheduler, propagator and N itself; N again on restored keys; and N as propagators work with it.

Invariant: where nobody reads low-level features N is asked in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vidseg_core.engine.look import FrameLook
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.state import KeyFrame, SegmentState
from vidseg_core.engine.stats import EngineStats
from vidseg_core.models.protocol import parts_of
from vidseg_core.propagation.filler import Filler


def connect(net: ChunkedNet, scheduler: Any, filler: Filler) -> bool:
    """Let scheduler (None: there is none) and propagator have N, where they use it. True: one of them reads
    low-level features. `SegmenterError` for a net that has none, and for one that does not go with them."""
    filler.net = net
    readers = (
        (f"propagator {filler.name!r}", filler.propagator),
        (f"scheduler {type(scheduler).__name__!r}", scheduler),
    )
    for name, reader in readers:
        if getattr(reader, "needs_low", False):
            parts_of(net.segmenter, name)
        if hasattr(reader, "check_net"):
            reader.check_net(net.segmenter)
        if hasattr(reader, "use_net"):
            reader.use_net(net)
    return any(getattr(reader, "needs_low", False) for _, reader in readers)


class Lows:
    """`needed`: scheduler or propagator read low-level features, so those of a key are kept with it."""

    def __init__(self, net: ChunkedNet, stats: EngineStats, *, needed: bool) -> None:
        self._net, self._stats, self.needed = net, stats, needed

    def see(self, looks: Sequence[FrameLook]) -> None:
        """The low-level features of these frames, in one call for all that have none yet."""
        bare = [look for look in looks if look.low_maps is None]
        if bare:
            with self._stats.timed("low"):
                found = self._net.low([look.frame.frame_HW3 for look in bare])
            for look, low in zip(bare, found, strict=True):
                look.low_maps = low

    def restore_keys(self, states: Sequence[SegmentState]) -> None:
        """N again on keys of restored states: low-level features, scores and features are not stored."""
        keys = [state.key for state in states if state.key is not None]
        with self._stats.timed("net"):
            self._low_again([key for key in keys if self.needed and key.low_maps is None])
            self._whole_again(
                [key for key in keys if key.carried is None or (key.own_from is not None and key.own is None)]
            )

    def _low_again(self, keys: Sequence[KeyFrame]) -> None:
        found = self._net.low([key.frame_HW3 for key in keys])
        for key, low in zip(keys, found, strict=True):
            key.low_maps = low

    def _whole_again(self, keys: Sequence[KeyFrame]) -> None:
        low = [key.low_maps for key in keys] if self.needed else None
        results = self._net.run([key.frame_HW3 for key in keys], low)
        for key, (_, carried) in zip(keys, results, strict=True):
            if key.own_from is None:
                key.carried = carried
            else:
                key.own, key.carried = carried, self._net.here(key.carried)
