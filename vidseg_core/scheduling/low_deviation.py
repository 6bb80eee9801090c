"""`low_deviation`: key where the labels have probably changed much since the last key (LVS section 2.2)."""

from __future__ import annotations

import torch

from vidseg_core.models.lvs import read_lvs
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.protocol import checked_threshold


class LowDeviation:
    """The expected share of pixels whose label differs from the last key's, in percent.

    `policy`: a file of train-propagation, for this segmenter. `threshold`: percent.
    """

    needs_flow, avoids_corrupt, needs_low = False, True, True

    def __init__(self, policy: str, threshold: float = 5.0) -> None:
        self.threshold = checked_threshold(threshold)
        self._file, self._net = policy, read_lvs(policy)

    def check_net(self, segmenter: object) -> None:
        """`SegmenterError` for a segmenter that the file does not belong to."""
        self._net.check(segmenter, self._file)

    @torch.inference_mode()
    def score(self, deviation: Deviation) -> float:
        low_1Lyx = [self._net.low_of(low)[None].float() for low in (deviation.key_low, deviation.low)]
        if next(self._net.parameters()).device != low_1Lyx[0].device:
            self._net.to(low_1Lyx[0].device)
        return 100.0 * float(self._net.deviation(*low_1Lyx)[0])
