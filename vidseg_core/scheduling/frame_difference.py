"""`frame_difference`: how much the gray values changed since the key (DVSNet Eq. 2)."""

from __future__ import annotations

import cv2

from vidseg_core.config.catalogue import usual_threshold
from vidseg_core.scheduling.deviation import Deviation, mean_of
from vidseg_core.scheduling.protocol import checked_threshold


class FrameDifference:
    """Mean absolute gray difference to the key frame, in gray levels (0..255).

    DVSNet Eq. 2 sums signed differences, so brightening cancels darkening; the thresholds of 60 to 100 of its
    Fig. 9 could hardly be reached that way. Here the absolute value is taken before the mean.
    """

    needs_flow = False
    avoids_corrupt = True

    def __init__(self, threshold: float = usual_threshold("frame_difference")) -> None:
        self.threshold = checked_threshold(threshold)

    def score(self, deviation: Deviation) -> float:
        return mean_of(cv2.absdiff(deviation.gray_current, deviation.gray_key))
