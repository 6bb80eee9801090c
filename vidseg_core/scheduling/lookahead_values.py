"""From expected losses of pairs to the best keys of a window, by dynamic programming at a price per key.

Model: the frames looked at are `stride` frames apart; a group is such a frame and the stride - 1 after it.
The value of an interval is the expected quality of its frames: one-sided the sum over its groups, two-sided
what both of its keys make of them, from losses that are evened out over neighbouring keys. With B[j] the best
value of the window from group j on, if j is a key,

    B[j] = max over e of value[j, e] + B[j + e] - price,        B[J] = 0,

which is exact for these values. One price for a whole corpus puts keys where they gain most. Where the
segment goes on after the window, a choice ends with some key in its second half; the frames after it count
with the mean value of a frame in the window, so that the end of the window decides nothing.

Legend: J groups, E longest interval in groups (1 = + 1), T frames, s stride.
"""

from __future__ import annotations

import numpy as np

BESIDE = 0.6
"""Weight of each neighbouring key in `evened`."""
SIDES_INPUTS = ("least", "both", "left")
"""What the two-sided loss of an interval is made of; see `sides_inputs`."""


def filled(loss_JE: np.ndarray) -> np.ndarray:
    """Losses of all pairs from those of the pairs looked at (see `lookahead_features.distances`): linear
    between two distances, the last one beyond it. NaN at e = 0 and past the end."""
    count, wide = loss_JE.shape
    full_JE = np.full_like(loss_JE, np.nan)
    for j in range(count - 1):
        fits = min(wide, count - j)
        known = np.flatnonzero(np.isfinite(loss_JE[j, :fits]))
        if len(known):
            full_JE[j, 1:fits] = np.interp(np.arange(1, fits), known, loss_JE[j, known])
    return full_JE


def evened(loss_JE: np.ndarray) -> np.ndarray:
    """Each loss as a weighted mean with those of the same frame under the keys before and after, where known.

    What is predicted of one key has its luck, and the best of many schedules is one that was lucky. For the
    right side of an interval, whose losses are read as (frame, right key), it evens out over the frames
    beside. Measured two-sided only (docs/policy.md); on one-sided schedules it did not help.
    """
    known_JE = np.isfinite(loss_JE)
    plain_JE = np.where(known_JE, loss_JE, 0.0)
    total_JE, weight_JE = plain_JE.copy(), known_JE.astype(np.float64)
    total_JE[:-1, 1:] += BESIDE * plain_JE[1:, :-1]
    weight_JE[:-1, 1:] += BESIDE * known_JE[1:, :-1]
    total_JE[1:, :-1] += BESIDE * plain_JE[:-1, 1:]
    weight_JE[1:, :-1] += BESIDE * known_JE[:-1, 1:]
    return np.where(known_JE, total_JE / np.maximum(weight_JE, 1.0), np.nan)


def one_sided_value(loss_JE: np.ndarray, frames: int, stride: int) -> np.ndarray:
    """float64 [J, E + 1]: at [j, e] the expected quality of the e groups from key j on; -inf past the end.

    `loss_JE`: expected loss of the frame j + e under key j, 0..1, for e >= 1.
    """
    count, wide = loss_JE.shape
    pixels_J = _group_sizes(frames, stride, count)
    value_JE = np.full((count, wide), -np.inf)
    full_JE = _with_own(loss_JE, stride)
    total_J = np.zeros(count)
    for e in range(1, wide):
        fits = count - e + 1
        if fits <= 0:
            break
        total_J[:fits] += pixels_J[e - 1 : e - 1 + fits] * (1.0 - full_JE[:fits, e - 1])
        value_JE[:fits, e] = total_J[:fits]
    return value_JE


def two_sided_value(loss_JE: np.ndarray, frames: int, stride: int, weights: np.ndarray) -> np.ndarray:
    """The same with both sides: frames between two keys lose what `weights` make of `sides_inputs`."""
    value_JE = one_sided_value(evened(loss_JE), frames, stride)
    inputs_JES = sides_inputs(loss_JE, stride)
    count, wide = loss_JE.shape
    lost_JE = np.clip(inputs_JES @ weights[:-1] + weights[-1], 0.0, 1.0)
    for e in range(1, wide):
        fits = count - e
        if fits <= 0:
            break
        value_JE[:fits, e] = 1.0 + (e * stride - 1) * (1.0 - lost_JE[:fits, e])
    return value_JE


def sides_inputs(loss_JE: np.ndarray, stride: int) -> np.ndarray:
    """float64 [J, E + 1, 3]: means over the groups between keys j and j + e of the lesser loss of both sides,
    of what is lost if both must fail, and of the left side's loss, all `evened`; x as log(1 + 10 x)."""
    count, wide = loss_JE.shape
    full_JE = _with_own(evened(loss_JE), stride)
    inputs_JES = np.zeros((count, wide, len(SIDES_INPUTS)))
    for e in range(1, wide):
        fits = count - e
        if fits <= 0:
            break
        offsets = np.arange(e)
        left_JM = full_JE[:fits, :e]
        right_JM = full_JE[np.arange(fits)[:, None] + offsets, e - offsets]
        both_JM = left_JM * right_JM / (left_JM + right_JM + 1e-6)
        parts = (np.minimum(left_JM, right_JM), both_JM, left_JM)
        inputs_JES[:fits, e] = np.stack([part.mean(axis=1) for part in parts], axis=1)
    return np.log1p(10.0 * inputs_JES)


def best_keys(
    value_JE: np.ndarray, price: float, may_J: np.ndarray, begins_J: np.ndarray, most: int
) -> list[int]:
    """The groups that become keys, without the first, which is one.

    `may_J`: may be key. `begins_J`: [J + 1] the frame at which each group begins, and the end. No interval
    has more than `most` frames, unless frames that may not be key leave no other way.
    """
    count, wide = value_JE.shape
    best_J = np.full(count + 1, -np.inf)
    best_J[count] = 0.0
    next_J = np.full(count + 1, count)
    open_J = np.append(may_J, True)
    for j in range(count - 1, -1, -1):
        ends = j + 1 + np.flatnonzero(open_J[j + 1 : j + wide])
        near = ends[begins_J[ends] - begins_J[j] <= most]
        ends = near if len(near) else ends[:1]
        if not len(ends):
            continue
        totals = value_JE[j, ends - j] + best_J[ends]
        at = int(np.argmax(totals))
        best_J[j], next_J[j] = totals[at] - price, ends[at]
    keys, at = [], int(next_J[0])
    while at < count:
        keys.append(at)
        at = int(next_J[at])
    return keys


def best_keys_ahead(
    value_JE: np.ndarray, price: float, may_J: np.ndarray, begins_J: np.ndarray, most: int
) -> list[int]:
    """As `best_keys` for a segment that goes on; the last of these keys is where the choice ends."""
    count, wide = value_JE.shape
    best_J = np.full(count, -np.inf)
    best_J[0] = 0.0
    before_J = np.zeros(count, np.int64)
    for j in np.flatnonzero(may_J[1:]) + 1:
        starts = np.flatnonzero(np.isfinite(best_J[max(0, j - wide + 1) : j])) + max(0, j - wide + 1)
        near = starts[begins_J[j] - begins_J[starts] <= most]
        starts = near if len(near) else starts[-1:]
        if not len(starts):
            continue
        totals = best_J[starts] + value_JE[starts, j - starts]
        at = int(np.argmax(totals))
        best_J[j], before_J[j] = totals[at] - price, starts[at]
    reached = np.flatnonzero(np.isfinite(best_J))
    last = reached[-1]
    if last == 0:
        return []
    rate = best_J[last] / begins_J[last]
    ends = reached[2 * begins_J[reached] >= begins_J[last]]
    keys = [int(ends[np.argmax(best_J[ends] - rate * begins_J[ends])])]
    while before_J[keys[-1]]:
        keys.append(int(before_J[keys[-1]]))
    return keys[::-1]


def _with_own(loss_JE: np.ndarray, stride: int) -> np.ndarray:
    """Losses with e = 0 filled in: the key itself loses nothing, the frames up to the next group little."""
    full_JE = np.nan_to_num(loss_JE, nan=0.0)
    if full_JE.shape[1] > 1:
        full_JE[:, 0] = full_JE[:, 1] * (stride - 1) / (2 * stride)
    return full_JE


def _group_sizes(frames: int, stride: int, count: int) -> np.ndarray:
    return np.minimum(stride, frames - stride * np.arange(count)).astype(np.float64)
