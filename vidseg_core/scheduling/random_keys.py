"""`random`: keys at random with a given mean interval (DVRL section 4.3, the second DFF variant)."""

from __future__ import annotations

from vidseg_core.config.catalogue import INTERVAL
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.protocol import checked_interval


class RandomKeys:
    """Each frame is key with probability 1 / `interval`, on its own.

    The random number of a frame depends on the run's seed, the segment and the frame's ordinal alone: the
    number of workers, lanes and restarts changes nothing. The mean key interval comes out shorter than asked
    for where `max_interval` forces keys and by the first key of each segment.
    """

    needs_flow = False
    avoids_corrupt = False

    def __init__(self, interval: float = INTERVAL) -> None:
        self.interval = float(checked_interval(interval))
        self.threshold = 1.0 - 1.0 / self.interval

    def score(self, deviation: Deviation) -> float:
        return 1.0 - deviation.random()
