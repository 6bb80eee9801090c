"""`flow_magnitude`: how far the picture has moved since the key (DVSNet Eq. 3)."""

from __future__ import annotations

import numpy as np

from vidseg_core.config.catalogue import usual_threshold
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.protocol import checked_threshold


class FlowMagnitude:
    """Mean length of the flow vectors to the key frame, in percent of the picture's longest side.

    DVSNet Eq. 3 counts pixels; dividing by the picture's side makes one threshold serve every flow size.
    """

    needs_flow = True
    avoids_corrupt = True

    def __init__(self, threshold: float = usual_threshold("flow_magnitude")) -> None:
        self.threshold = checked_threshold(threshold)

    def score(self, deviation: Deviation) -> float:
        squared_HW2 = np.square(deviation.flow)
        length_HW = np.sqrt(squared_HW2[..., 0] + squared_HW2[..., 1])
        return 100.0 * _exact_mean(length_HW) / deviation.pixel_pitch


def _exact_mean(values_HW: np.ndarray) -> float:
    """Mean of values rounded to 1/1024: integers add up to the same sum in any order.

    Scores are stored and compared between runs; cv2.magnitude may differ in the last bit with the place of an
    array in memory.
    """
    return int(np.rint(values_HW * np.float32(1024.0)).astype(np.int64).sum()) / (1024.0 * values_HW.size)
