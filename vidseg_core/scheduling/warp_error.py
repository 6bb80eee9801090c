"""`warp_error`: how badly the warped key explains the frame.

Motion that the flow can follow costs nothing here; what is new, hidden or lost does. LVS section 2.2 predicts
the change of the mask from low-level features; the photometric error after warping is the cheapest relative.
"""

from __future__ import annotations

from vidseg_core.config.catalogue import usual_threshold
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.protocol import checked_threshold


class WarpError:
    """Mean absolute photometric error after warping the key to the frame, in gray levels (0..255)."""

    needs_flow = True
    avoids_corrupt = True

    def __init__(self, threshold: float = usual_threshold("warp_error")) -> None:
        self.threshold = checked_threshold(threshold)

    def score(self, deviation: Deviation) -> float:
        return deviation.warp_error
