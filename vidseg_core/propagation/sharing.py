"""`feature_sharing`: the levels cached of a key beside the frame's own (FeatureSharing section 3.2, S_prop).

Nothing is moved and nothing predicted: the net itself was trained so that what its coarse levels say of a
key holds for the frames after it (`train-propagation`; the net is `models.levels.SharingNet`). All weights
are the net's. Any net in parts with `fuse` will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vidseg_core.models.protocol import SegmenterError
from vidseg_core.propagation.gap import FramePair, in_calls
from vidseg_core.propagation.propagators import Level, NetInCalls


class FeatureSharing:
    """Low-level features of each frame and features of its key, put together by the net."""

    level: Level = "features"
    needs_flow, needs_low = False, True
    _net: NetInCalls

    def check_net(self, segmenter: Any) -> None:
        """`SegmenterError` for a segmenter that has no `fuse`."""
        if not getattr(segmenter, "has_fuse", False):
            raise SegmenterError(
                f"feature_sharing joins levels of key and frame, but {segmenter.name!r} has no fuse: name "
                "--segmenter sharing:1/NET (docs/models.md), or see docs/plugins.md"
            )

    def use_net(self, net: NetInCalls) -> None:
        """The net that fuses."""
        self._net = net

    def move(self, pairs: Iterable[FramePair]) -> Iterator[Any]:
        """What the net's head takes of each frame."""
        return in_calls(pairs, self._net.batch, lambda pair: None, self._fused)

    def _fused(self, pairs: list[FramePair]) -> list[Any]:
        return self._net.fuse([pair.low for pair in pairs], [pair.key.carried for pair in pairs])
