"""`low_change`: key where the labels of a shallow part of N have changed (Clockwork, adaptive clock)."""

from __future__ import annotations

from vidseg_core.models.clockwork import read_clock
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.protocol import checked_threshold


class LowChange:
    """The share of places whose class, by a score layer on low-level features, differs from the last key's,
    in percent.

    `policy`: a file of train-propagation --propagator clockwork, for this segmenter. `threshold`: percent.
    """

    needs_flow, avoids_corrupt, needs_low = False, True, True

    def __init__(self, policy: str, threshold: float = 10.0) -> None:
        self.threshold = checked_threshold(threshold)
        self._file, self._net = policy, read_clock(policy)

    def check_net(self, segmenter: object) -> None:
        """`SegmenterError` for a segmenter that the file does not belong to."""
        self._net.check(segmenter, self._file)

    def score(self, deviation: Deviation) -> float:
        return 100.0 * self._net.changed(deviation.key_low, deviation.low)
