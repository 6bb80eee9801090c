"""`flow_magnitude`: how far the picture has moved since the key (DVSNet Eq. 3)."""

from __future__ import annotations

import cv2

from vidseg_core.scheduling.deviation import Deviation, mean_of
from vidseg_core.scheduling.protocol import checked_threshold


class FlowMagnitude:
    """Mean length of the flow vectors to the key frame, in percent of the picture's longest side.

    DVSNet Eq. 3 counts pixels; dividing by the picture's side makes one threshold serve every flow size.
    """

    needs_flow = True
    avoids_corrupt = True

    def __init__(self, threshold: float = 2.0) -> None:
        self.threshold = checked_threshold(threshold)

    def score(self, deviation: Deviation) -> float:
        u_HW, v_HW = cv2.split(deviation.flow)
        return 100.0 * mean_of(cv2.magnitude(u_HW, v_HW)) / deviation.pixel_pitch
