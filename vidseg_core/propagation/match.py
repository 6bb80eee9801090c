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

from vidseg_core.models.match import MatchNet, quick, read_match
from vidseg_core.propagation.asked import Asked, key_at
from vidseg_core.propagation.gap import Gap, GapFrame, Reads
from vidseg_core.propagation.propagators import Level
from vidseg_core.propagation.self_check import FLOW, PART, SelfCheck
from vidseg_core.propagation.sight import advantage
from vidseg_core.propagation.two_sided import choose
from vidseg_core.propagation.warp import warp_labels


class Match:
    """`weights`: a file of train-propagation; None: `tiny-match`. `self_check`: a gap's keys decide whether
    the net fills it, or flow, or the net in part; `adapt_steps`: the net gets used to a segment's keys (see
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
        self._check = SelfCheck(self.net, adapt_steps)
        self._quick = quick(self.net)

    def fill(self, gaps: Sequence[Gap]) -> Iterator[np.ndarray]:
        """The label map of each frame."""
        for gap in gaps:
            net, part = self._chosen(gap)
            yield from fill_gap(net, gap, part=part)

    def most_remembered(self, height: int, width: int, channels: int) -> int:
        """Bytes of a self-check."""
        return self._check.most_remembered(height, width, channels)

    def _chosen(self, gap: Gap) -> tuple[MatchNet | None, bool]:
        """What fills the gap (None: flow does), and whether it does in part."""
        if not self.remembers:
            return self._quick, False
        past, two_sided = self._check.close(gap), gap.right is not None
        gap.filled_by = past.words(two_sided=two_sided)
        extent = past.extent(two_sided=two_sided)
        return None if extent == FLOW else self._check.net_of(past), extent == PART


def fill_gap(net: MatchNet | None, gap: Gap, *, part: bool = False) -> Iterator[np.ndarray]:
    """The label map of each frame of one gap; without a net flow says all. `part`: the net where the sides
    differ, flow elsewhere."""
    keys = [key_at(key) for key in ([gap.left] if gap.right is None else [gap.left, gap.right])]
    asked = None if net is None else Asked.about(net, keys)
    for frame in gap.frames:
        says, advantage_hw = flow_says(gap, frame)
        yield says[0] if asked is None else asked.labels(frame, says, advantage_hw, part=part)


def flow_says(gap: Gap, frame: GapFrame) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The keys' maps at the frame: the better side, left, right, at working size; and where the right one is
    better, if there is one."""
    assert frame.left.flow_hw2 is not None
    left_HW = warp_labels(gap.left.carried, frame.left.flow_hw2)
    if gap.right is None or frame.right is None:
        return [left_HW] * 3, None
    assert frame.right.flow_hw2 is not None
    right_HW = warp_labels(gap.right.carried, frame.right.flow_hw2)
    advantage_hw = advantage(frame.left, frame.right)
    return [choose(left_HW, right_HW, advantage_hw), left_HW, right_HW], advantage_hw
