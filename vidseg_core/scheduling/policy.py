"""`policy`: a trained policy decides (DVRL section 3.1): key where pi(a1 | s) > tau."""

from __future__ import annotations

import numpy as np

from vidseg_core.config.catalogue import POINT_INTERVAL
from vidseg_core.models.policy import Policy as PolicyNet
from vidseg_core.models.policy_file import PolicyFacts, read_policy
from vidseg_core.models.policy_trunk import PolicyError
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.feature_sets import FeatureReader
from vidseg_core.scheduling.history import HISTORY_LENGTH
from vidseg_core.scheduling.pair_maps import MAPS_DIGEST
from vidseg_core.scheduling.protocol import checked_threshold


class Policy:
    """The probability of a key, pi(a1 | s), in [0, 1]; `threshold` is tau.

    `policy`: a file of train-policy. The state is {D, KAR, LKD} with KAR and LKD as the engine counts them,
    and D the features that the file names. ValueError for a file that is no such policy.
    """

    avoids_corrupt = True

    def __init__(self, policy: str, threshold: float | None = None) -> None:
        net, self.facts = read_policy(policy, role="policy")
        assert isinstance(net, PolicyNet)
        if self.facts.history != HISTORY_LENGTH:
            raise PolicyError(
                f"{policy} was trained with a history of {self.facts.history} decisions, the engine keeps "
                f"{HISTORY_LENGTH}; train it with --episode.history {HISTORY_LENGTH}"
            )
        self._net, self._read = net, reader_for(self.facts, policy)
        self.needs_flow, self.needs_previous = self._read.needs_flow, self._read.needs_previous
        self.map_sets, self.maps_digest = self._read.map_sets, self.facts.fingerprint.get(MAPS_DIGEST)
        self.threshold = chosen_threshold(self.facts, threshold)

    def score(self, deviation: Deviation) -> float:
        kar_1, lkd_1 = (np.array([value], np.float32) for value in (deviation.kar, deviation.lkd))
        return float(self._net.key_rate(self._read(deviation)[None], kar_1, lkd_1)[0])


def reader_for(facts: PolicyFacts, path: str) -> FeatureReader:
    """What reads the features that the file's net was trained on."""
    try:
        return FeatureReader(facts.feature_names)
    except ValueError as error:
        raise PolicyError(f"{path} cannot be used here: {error}") from error


def chosen_threshold(facts: PolicyFacts, threshold: float | None, *, summed: bool = False) -> float:
    """The threshold that was asked for, else the file's own for the usual interval."""
    if threshold is None:
        return facts.threshold_at(POINT_INTERVAL, summed=summed)
    return checked_threshold(threshold)
