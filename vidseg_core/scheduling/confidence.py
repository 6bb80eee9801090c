"""`confidence`: DVSNet's adaptive key frames (section 3.2): key where the expected confidence is below t."""

from __future__ import annotations

from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy_file import read_policy
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.policy import chosen_threshold, reader_for


class Confidence:
    """1 - expected confidence: the share of the frame that is expected to be wrong. `threshold` is 1 - t.

    So the higher score asks for the key, as with every scheduler. `policy`: a file of train-decision.
    ValueError for any other file.
    """

    avoids_corrupt = True

    def __init__(self, policy: str, threshold: float | None = None) -> None:
        net, self.facts = read_policy(policy, role="decision")
        assert isinstance(net, DecisionNet)
        self._net, self._read = net, reader_for(self.facts, policy)
        self.needs_flow = self._read.needs_flow
        self.threshold = chosen_threshold(self.facts, threshold)

    def score(self, deviation: Deviation) -> float:
        return float(1.0 - self._net.confidence(self._read(deviation)[None])[0])
