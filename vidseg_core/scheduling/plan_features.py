"""What a planner knows of every pair (key, frame) of a window, before any of its frames becomes a key.

Model: only every `stride`-th frame behind the last key may become a key, and only those are looked at. Each
pair of them gets the plain flow between the two small pictures, the cheap features and, with the last key's
mask carried to the pair's key, the mask features; what the steps of the way from key to frame add up to and
the largest of them say what happened in between.

Cost: (W / s)^2 / 2 small flows for a window of W frames: 1.6 ms a pair on one core.

Legend: J frames looked at, E longest distance in strides (1 = + 1), P features; h, w; gray, labels uint8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.warp import warp_labels
from vidseg_core.scheduling.cheap_features import FEATURE_NAMES, cheap_features
from vidseg_core.scheduling.mask_features import MASK_FEATURES, mask_features

_PAIR = (*FEATURE_NAMES, *MASK_FEATURES)
_STEP = FEATURE_NAMES[1:]
PLAN_FEATURES = (
    *_PAIR,
    *(f"way_{name}" for name in _STEP),  # added up over the steps from the key to the frame
    *(f"step_{name}" for name in _STEP),  # of the step where it is largest
)
"""Names of the P features, in order."""


class Pairs:
    """Flow and cheap features of two pictures; keeps nothing."""

    def __init__(self) -> None:
        self._flow = DisFlow(chained=False)

    def __call__(self, current: np.ndarray, key: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
        """(flow_hw2 from current to key, features)."""
        flow_hw2 = self._flow.flow([current], [key])[0]
        return flow_hw2, cheap_features(current, key, flow_hw2, distance)


def plan_features(
    grays: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    stride: int,
    reach: int,
    pairs: Pairs,
) -> np.ndarray:
    """float32 [J, E + 1, P]: at [j, e] of the frames j and j + e; NaN at e = 0 and past the end.

    `grays`, `labels`: J pictures and the masks of each, `stride` frames apart; with one mask alone, that of
    the first picture, the others are carried from it. `reach`: E in strides.
    """
    count = len(grays)
    pair_JEP = np.full((count, reach + 1, len(_PAIR)), np.nan, np.float32)
    known = list(labels[:1])
    for j in range(count - 1):
        for e in range(1, min(reach, count - 1 - j) + 1):
            current, key = grays[j + e], grays[j]
            flow_hw2, cheap_F = pairs(current, key, e * stride)
            if len(labels) == 1 and j == 0:
                known.append(warp_labels(labels[0], flow_hw2))
            mask_hw = known[min(j, len(known) - 1)] if len(labels) == 1 else labels[j]
            pair_JEP[j, e] = (
                *cheap_F,
                *mask_features(current, key, flow_hw2, mask_hw),
            )
    return np.concatenate([pair_JEP, _ways(pair_JEP)], axis=2)


def _ways(pair_JEP: np.ndarray) -> np.ndarray:
    """float32 [J, E + 1, 2 steps]: sums and maxima over the steps from j to j + e."""
    count, wide = pair_JEP.shape[:2]
    step_JS = pair_JEP[:, 1, 1 : len(FEATURE_NAMES)].astype(np.float64)
    total_JES = np.full((count, wide, step_JS.shape[1]), np.nan)
    largest_JES = total_JES.copy()
    total_JES[:, 0], largest_JES[:, 0] = 0.0, -np.inf
    for e in range(1, wide):
        fits = count - e
        if fits <= 0:
            break
        here_JS = step_JS[e - 1 : e - 1 + fits]
        total_JES[:fits, e] = total_JES[:fits, e - 1] + here_JS
        largest_JES[:fits, e] = np.maximum(largest_JES[:fits, e - 1], here_JS)
    both_JE = np.concatenate([total_JES, largest_JES], axis=2).astype(np.float32)
    both_JE[:, 0] = np.nan
    return both_JE
