"""Expected losses of a decision net, added up since the key, on tables: what `confidence_sum` scores.

Model: the sum of a pair (k, k + d) over the distances 1 to d depends on the pair alone, so it is one more
deviation of the pair, and whatever walks tables can walk it.

Legend: R rows, L horizon (L1 = L + 1), F deviation features.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vidseg_core.episodes.table_set import TableSet
from vidseg_core.models.decision import DecisionNet

SUMMED = "expected_loss_sum"


def with_summed_losses(tables: TableSet, net: DecisionNet) -> TableSet:
    """The tables with the one feature `SUMMED`, float32; NaN behind a pair of which nothing is known."""
    rows, wide, features = tables.deviation_RL1F.shape
    loss_RL1 = 1.0 - net.confidence(tables.deviation_RL1F.reshape(-1, features)).reshape(rows, wide)
    loss_RL1 = np.maximum(loss_RL1, 0.0).astype(np.float32)
    loss_RL1[:, 0] = 0.0
    summed_RL1 = np.cumsum(loss_RL1, axis=1, dtype=np.float32)
    return replace(tables, deviation_RL1F=summed_RL1[..., None], feature_names=(SUMMED,))


class SummedLoss:
    """The scorer of such tables."""

    def key_rate(self, deviation_WF: np.ndarray, kar_W: np.ndarray, lkd_W: np.ndarray) -> np.ndarray:
        return deviation_WF[:, 0].astype(np.float64)
