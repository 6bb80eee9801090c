"""What a decision net expects of a frame, as a score.

| scheduler        | a key where                                                                       |
|------------------|-----------------------------------------------------------------------------------|
| `confidence`     | the expected confidence is below t (DVSNet section 3.2): a share of pixels, Eq. 1 |
| `expected_loss`  | the expected quality is too low, in what the net's tables measured (say mIoU)     |
| `confidence_sum` | the losses expected since the key add up to too much                              |
"""

from __future__ import annotations

import numpy as np

from vidseg_core.config.catalogue import AGREEMENT
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy_file import read_policy
from vidseg_core.models.policy_trunk import PolicyError
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.pair_maps import MAPS_DIGEST
from vidseg_core.scheduling.policy import chosen_threshold, reader_for


class Confidence:
    """1 - expected confidence: the share of the pixels that are expected to be wrong (DVSNet Eq. 1).

    `threshold` is 1 - t, so the higher score asks for the key, as with every scheduler. `policy`: a file of
    train-decision. ValueError for any other file, and for a net that learned another quality than
    `accuracy`: its numbers are no shares of pixels, and no t of the paper would mean the same.
    """

    avoids_corrupt = True
    summed = False
    quality = AGREEMENT
    """What the net must have learned; empty: any."""

    def __init__(self, policy: str, threshold: float | None = None) -> None:
        net, self.facts = read_policy(policy, role="decision")
        assert isinstance(net, DecisionNet)
        self._check_quality(policy)
        self._net, self._read = net, reader_for(self.facts, policy)
        self.needs_flow, self.needs_previous = self._read.needs_flow, self._read.needs_previous
        self.map_sets, self.maps_digest = self._read.map_sets, self.facts.fingerprint.get(MAPS_DIGEST)
        if self.summed and self.needs_previous:
            raise PolicyError(
                f"{policy} reads features of the set moving, which sum up what moves since the key; "
                "confidence_sum needs that memory for its own sum: train the net on other features"
            )
        self.threshold = chosen_threshold(self.facts, threshold, summed=self.summed)

    def score(self, deviation: Deviation) -> float:
        return float(1.0 - self._net.confidence(self._read(deviation)[None])[0])

    def _check_quality(self, policy: str) -> None:
        learned = self.facts.fingerprint.get("quality", "a quality that the file does not name")
        if self.quality not in ("", learned):
            raise PolicyError(
                f"{policy} was trained on tables of --quality {learned}, but confidence is a share of pixels "
                f"(DVSNet Eq. 1): take --scheduler.name expected_loss or confidence_sum, or train it on "
                f"tables of build-episodes --quality {self.quality}"
            )


class ExpectedLoss(Confidence):
    """1 - expected quality of the propagated frame, in the unit of the tables that the net learned from."""

    quality = ""


class ConfidenceSum(ExpectedLoss):
    """What the interval since the last key is expected to have lost, in frames: the sum of
    max(0, 1 - expected quality) over its frames. `threshold`: how much it may lose.

    A threshold on one frame's loss spends a corpus's keys on the clips that move most; what is lost over an
    interval is what a key can save. (Not in DVSNet; `episodes.on_tables.summed` is the same on tables.)
    """

    summed = True

    def score(self, deviation: Deviation) -> float:
        total = float(np.float32(deviation.memory) + np.float32(max(0.0, super().score(deviation))))
        deviation.remember(total)
        return total
