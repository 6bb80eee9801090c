"""`fixed`: a key every `interval` frames (DFF; DVSNet Fig. 4a)."""

from __future__ import annotations

from vidseg_core.config.catalogue import INTERVAL
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.protocol import checked_interval


class Fixed:
    """Key when the last key is `interval` frames back, whatever the pictures show.

    The score is the distance to the last key (LKD) in frames; the threshold follows from the interval.
    """

    needs_flow = False
    avoids_corrupt = False

    def __init__(self, interval: int = INTERVAL) -> None:
        if int(interval) != interval:
            raise ValueError(f"scheduler.interval must be a whole number of frames, not {interval!r}")
        self.interval = int(checked_interval(interval))
        self.threshold = float(self.interval - 1)

    def score(self, deviation: Deviation) -> float:
        return float(deviation.lkd)
