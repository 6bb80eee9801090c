"""A schedule of key frames: how many there are and how they lie, how quality falls off after a key, and how
long results wait.

Model: a schedule is one boolean a frame, true where N ran, and the first frame of a segment always is a key.
AKI (average key interval) is frames over keys (DVRL 4.2); CKI (consecutive key interval) is the distance from
one key to the next (DVRL 4.4, Fig. 6). Schedules of several segments are joined by `join`, never by
concatenation, so that no interval crosses a segment's edge. `lkd_T[t]` is the distance of frame t to the last
key at or before it, 0 for a key. Latency has two parts that never add up to one number without a frame rate,
so both are given: seconds of compute (a key costs the net, as DVSNet and LVS count it), and frames of waiting
(with two-sided propagation a frame waits for the next key; 0 online).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class KeyStatistics:
    """Totals of one schedule or of several."""

    frames: int
    keys: int
    intervals: np.ndarray
    """int64, every consecutive key interval (frames), in order; empty with fewer than two keys in each
    segment."""

    @property
    def aki(self) -> float:
        """Average key interval, frames per key; NaN without keys."""
        return self.frames / self.keys if self.keys else float("nan")

    @property
    def calls_saved(self) -> float:
        """Share of frames on which the key net did not run, 0..1; 0 without frames."""
        return 1.0 - self.keys / self.frames if self.frames else 0.0


def key_statistics(is_key: Sequence[bool] | np.ndarray) -> KeyStatistics:
    """Statistics of one segment's schedule, in frame order."""
    keys_T = np.asarray(is_key, dtype=bool)
    positions = np.flatnonzero(keys_T)
    return KeyStatistics(
        frames=len(keys_T), keys=len(positions), intervals=np.diff(positions).astype(np.int64)
    )


def join(parts: Iterable[KeyStatistics]) -> KeyStatistics:
    """Totals over segments or videos."""
    listed = list(parts)
    return KeyStatistics(
        frames=sum(part.frames for part in listed),
        keys=sum(part.keys for part in listed),
        intervals=np.concatenate([np.empty(0, dtype=np.int64), *(part.intervals for part in listed)]),
    )


def distances(is_key: Sequence[bool] | np.ndarray) -> np.ndarray:
    """int64 [T]: frames since the last key, 0 at a key. ValueError unless the first frame is a key."""
    keys_T = np.asarray(is_key, dtype=bool)
    if not len(keys_T):
        return np.empty(0, np.int64)
    if not keys_T[0]:
        raise ValueError("the first frame of a run must be a key")
    ordinal_T = np.arange(len(keys_T))
    return ordinal_T - np.maximum.accumulate(np.where(keys_T, ordinal_T, 0))


def far_from_keys(schedules: Sequence[Sequence[bool] | np.ndarray], count: int) -> list[int]:
    """Of `count` equal stretches of a video each the frame that is farthest from keys, before and after it,
    in all of these schedules: what a key's result must have travelled to.

    Where every frame of a stretch is a key of some schedule, its first one.
    """
    far_T = np.min([_to_nearest_key(keys_T) for keys_T in schedules], axis=0)
    stretches = [part for part in np.array_split(np.arange(len(far_T)), count) if len(part)]
    return [int(part[np.argmax(far_T[part])]) for part in stretches]


def _to_nearest_key(is_key: Sequence[bool] | np.ndarray) -> np.ndarray:
    """int64 [T]: frames to the nearest key, before or after."""
    keys = np.flatnonzero(is_key)
    ordinal_T = np.arange(len(is_key))
    if not len(keys):
        return np.zeros(len(is_key), np.int64)
    after_T = np.searchsorted(keys, ordinal_T)
    after, before = keys[np.minimum(after_T, len(keys) - 1)], keys[np.maximum(after_T - 1, 0)]
    return np.minimum(np.abs(after - ordinal_T), np.abs(ordinal_T - before))


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


def latency(
    is_key: Sequence[bool] | np.ndarray,
    *,
    two_sided: bool,
    key_s: float,
    other_s: float,
    fast_track: bool = False,
) -> Latency:
    """Latency of one run. `key_s`, `other_s`: compute of a key frame and of any other one, seconds.

    `fast_track`: a key is answered like any other frame, and the net runs beside (LVS section 2.4); the first
    frame, which must wait for it, counts in the mean and not in the maximum.
    """
    keys_T = np.asarray(is_key, dtype=bool)
    if not len(keys_T):
        return Latency(mean_s=float("nan"), max_s=float("nan"), mean_wait_frames=0.0, max_wait_frames=0)
    slow_T = keys_T & (np.arange(len(keys_T)) == 0) if fast_track else keys_T
    seconds_T = np.where(slow_T, key_s, other_s)
    wait_T = waits(keys_T) if two_sided else np.zeros(len(keys_T), np.int64)
    return Latency(
        mean_s=float(seconds_T.mean()),
        max_s=float(seconds_T[1:].max() if fast_track and len(keys_T) > 1 else seconds_T.max()),
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


def distance_weighted_mean(key: float, current: float, distance: int) -> float:
    """One number for keys every `distance` frames, from the quality of keys and of the frames between them
    (FeatureSharing chapter 5, mean accuracy)."""
    if distance < 1:
        raise ValueError(f"keys come every 1 or more frames, not every {distance}")
    return (key + (distance - 1) * current) / distance
