"""What a planner knows of every pair (key, frame) of a window, before any of its frames becomes a key.

Model: only every `stride`-th frame after the last key may become a key, and only those are looked at. Each
pair of them gets the plain flow between the two small pictures, the cheap features and, with the last key's
mask carried to the pair's key, the mask features; what the steps of the way from key to frame add up to and
the largest of them say what happened in between.

What a pair loses changes smoothly with its distance: near pairs are all looked at, of the far ones every
third (`distances`); `lookahead_values.filled` puts in the others.

Cost: 770 pairs for a window of 180 frames with a step of 3 and a reach of 90.

Legend: J frames looked at, E longest distance in strides (1 = + 1), P features; h, w; gray, labels uint8.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.warp import warp_labels
from vidseg_core.scheduling.cheap_features import FEATURE_NAMES, cheap_features
from vidseg_core.scheduling.mask_features import MASK_FEATURES, mask_features

NEAR, APART = 8, 3
"""Distances up to NEAR strides are all looked at, beyond it every APART-th."""
_PAIR = (*FEATURE_NAMES, *MASK_FEATURES)
_STEP = FEATURE_NAMES[1:]
LOOKAHEAD_FEATURES = (
    *_PAIR,
    *(f"way_{name}" for name in _STEP),  # added up over the steps from the key to the frame
    *(f"step_{name}" for name in _STEP),  # of the step where it is largest
)
"""Names of the P features, in order."""


def distances(reach: int) -> list[int]:
    """The distances, in strides, of the pairs that are looked at; 1 and `reach` are among them."""
    near = range(1, min(NEAR, reach) + 1)
    return sorted({*near, *range(NEAR + APART, reach + 1, APART), reach})


class Pairs:
    """Flow and cheap features of two pictures. The latest `most` pairs are kept: a new window is looked at
    after each key, and most of its pairs are those of the window before. (37 kB a pair of 128 x 72.)

    Flows have 16 bits, kept or not, so that what is kept decides nothing.
    """

    def __init__(self, most: int = 2500) -> None:
        self._flow, self._most = DisFlow(chained=False), most
        self._known: OrderedDict[tuple[bytes, bytes, int], tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def __call__(self, current: np.ndarray, key: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
        """(flow_hw2 from current to key, features)."""
        place = _digest(current), _digest(key), distance
        if place in self._known:
            self._known.move_to_end(place)
        else:
            self._known[place] = self._look(current, key, distance)
        flow_hw2, features = self._known[place]
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return flow_hw2.astype(np.float32), features

    def _look(self, current: np.ndarray, key: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
        flow_hw2 = self._flow.flow([current], [key])[0].astype(np.float16)
        return flow_hw2, cheap_features(current, key, flow_hw2.astype(np.float32), distance)


def _digest(picture: np.ndarray) -> bytes:
    data = np.ascontiguousarray(picture)
    return hashlib.blake2b(data.data, digest_size=12, salt=b"%dx%d" % data.shape).digest()


def lookahead_features(
    grays: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    stride: int,
    reach: int,
    pairs: Pairs,
) -> np.ndarray:
    """float32 [J, E + 1, P]: at [j, e] of the frames j and j + e; NaN past the end, and where e is not one of
    `distances`.

    `grays`, `labels`: J pictures and the masks of each, `stride` frames apart; with one mask alone, that of
    the first picture, the others are carried from it, by way of another where the two are no pair.
    `reach`: E in strides.
    """
    count = len(grays)
    pair_JEP = np.full((count, reach + 1, len(_PAIR)), np.nan, np.float32)
    looked_at = distances(reach)
    known = dict(enumerate(labels))
    for j in range(count - 1):
        mask_hw = known[j]
        for e in (e for e in looked_at if j + e < count):
            current, key = grays[j + e], grays[j]
            flow_hw2, cheap_F = pairs(current, key, e * stride)
            if j + e not in known:
                known[j + e] = warp_labels(mask_hw, flow_hw2)
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
