"""What a schedule means for the frames: how quality falls off after a key, and how long results wait.

Model: one run of frames in order, its first frame a key. `lkd_T[t]` is the distance of frame t to the last
key at or before it, 0 for a key. Latency has two parts that never add up to one number without a frame rate,
so both are given: seconds of compute (a key costs the net, as DVSNet and LVS count it), and frames of waiting
(with two-sided propagation a frame waits for the next key; 0 online).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def distances(is_key: Sequence[bool] | np.ndarray) -> np.ndarray:
    """int64 [T]: frames since the last key, 0 at a key. ValueError unless the first frame is a key."""
    keys_T = np.asarray(is_key, dtype=bool)
    if not len(keys_T):
        return np.empty(0, np.int64)
    if not keys_T[0]:
        raise ValueError("the first frame of a run must be a key")
    ordinal_T = np.arange(len(keys_T))
    return ordinal_T - np.maximum.accumulate(np.where(keys_T, ordinal_T, 0))


@dataclass(frozen=True, kw_only=True)
class Decay:
    """Mean quality by distance from the last key."""

    distance: np.ndarray
    """int64, ascending; only distances that occurred on a frame with a known quality."""
    quality: np.ndarray
    """float64, mean over those frames."""
    frames: np.ndarray
    """int64, how many."""


def quality_by_distance(distance_T: np.ndarray, quality_T: np.ndarray) -> Decay:
    """How quality falls off after a key; frames whose quality is NaN are left out."""
    known = ~np.isnan(quality_T)
    distance, quality = np.asarray(distance_T)[known].astype(np.int64), np.asarray(quality_T)[known]
    found, place, frames = np.unique(distance, return_inverse=True, return_counts=True)
    sums = np.bincount(place, weights=quality, minlength=len(found))
    return Decay(distance=found, quality=sums / np.maximum(frames, 1), frames=frames.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How late results are."""

    mean_s: float
    """Seconds of compute for a frame, on average."""
    max_s: float
    """Cost of the most expensive frame: a key pays for the net, where there is a key at all."""
    mean_wait_frames: float
    """Frames that a result waits for the next key, on average; 0 when propagation is one-sided."""
    max_wait_frames: int


def latency(is_key: Sequence[bool] | np.ndarray, *, two_sided: bool, key_s: float, other_s: float) -> Latency:
    """Latency of one run. `key_s`, `other_s`: compute of a key frame and of any other one, seconds."""
    keys_T = np.asarray(is_key, dtype=bool)
    if not len(keys_T):
        return Latency(mean_s=float("nan"), max_s=float("nan"), mean_wait_frames=0.0, max_wait_frames=0)
    seconds_T = np.where(keys_T, key_s, other_s)
    wait_T = waits(keys_T) if two_sided else np.zeros(len(keys_T), np.int64)
    return Latency(
        mean_s=float(seconds_T.mean()),
        max_s=float(seconds_T.max()),
        mean_wait_frames=float(wait_T.mean()),
        max_wait_frames=int(wait_T.max()),
    )


def waits(is_key: Sequence[bool] | np.ndarray) -> np.ndarray:
    """int64 [T]: frames until the next key (or until the run's last frame), 0 at a key."""
    keys_T = np.asarray(is_key, dtype=bool)
    last = len(keys_T) - 1
    ordinal_T = np.arange(len(keys_T))
    next_T = np.minimum.accumulate(np.where(keys_T, ordinal_T, last)[::-1])[::-1]
    return np.where(keys_T, 0, next_T - ordinal_T)
