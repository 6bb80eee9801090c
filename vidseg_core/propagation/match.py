"""`match`: frames between keys by a net that looks at frame and keys (`models.match`).

Model: flow is asked first, on both sides, and the net corrects what it says where the pictures know better
(`asked`). It knows no classes, so any segmenter will do. With a self-check a segment's own keys decide
whether it is used, and teach it (`self_check`).

Invariant: what a frame shows depends on its gap and the gap's memory: frames go through the net one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from vidseg_core.models.match import MatchNet, read_match
from vidseg_core.propagation.asked import Asked, key_at
from vidseg_core.propagation.gap import Gap, GapFrame, Reads
from vidseg_core.propagation.propagators import Level
from vidseg_core.propagation.self_check import SelfCheck
from vidseg_core.propagation.sight import advantage
from vidseg_core.propagation.two_sided import choose
from vidseg_core.propagation.warp import warp_labels


class Match:
    """`weights`: a file of train-propagation; None: `tiny-match`. `self_check`: a segment's keys decide
    whether flow or the net fills its gaps; `adapt_steps`: and the net gets used to them (see
    `self_check`)."""

    level: Level = "labels"
    needs_flow = True
    reads: Reads = "colours"

    def __init__(
        self,
        weights: str | None = None,
        device: str = "cpu",
        self_check: bool = False,
        adapt_steps: int = 0,
        net: MatchNet | None = None,
    ) -> None:
        self.net = (net or read_match(weights)).to(torch.device(device))
        self.remembers = self_check
        self._steps = adapt_steps

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        """The label map of each frame."""
        for gap in gaps:
            yield from fill_gap(self._chosen(gap), gap)

    def most_remembered(self, height: int, width: int, channels: int) -> int:
        """Bytes of a self-check."""
        return SelfCheck(self.net, self._steps).most_remembered(height, width, channels)

    def _chosen(self, gap: Gap) -> MatchNet | None:
        """What fills the gap; None: flow does."""
        if not self.remembers:
            return self.net
        check = SelfCheck(self.net, self._steps)
        past = check.close(gap)
        gap.filled_by = past.words()
        return check.net_of(past)


def fill_gap(net: MatchNet | None, gap: Gap) -> Iterator[np.ndarray]:
    """The label map of each frame of one gap; without a net flow says all."""
    keys = [key_at(key) for key in ([gap.left] if gap.right is None else [gap.left, gap.right])]
    asked = None if net is None else Asked.about(net, keys)
    for frame in gap.frames:
        says = flow_says(gap, frame)
        yield says[0] if asked is None else asked.labels(frame, says)


def flow_says(gap: Gap, frame: GapFrame) -> list[np.ndarray]:
    """The keys' maps at the frame: the better side, left, right; at working size."""
    assert frame.left.flow_hw2 is not None
    left_HW = warp_labels(gap.left.carried, frame.left.flow_hw2)
    if gap.right is None or frame.right is None:
        return [left_HW] * 3
    assert frame.right.flow_hw2 is not None
    right_HW = warp_labels(gap.right.carried, frame.right.flow_hw2)
    return [choose(left_HW, right_HW, advantage(frame.left, frame.right)), left_HW, right_HW]
