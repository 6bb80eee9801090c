"""A schedule on a table: what it is worth.

Model: the keys of a schedule cut a segment into intervals; frame k + d of the interval of key k has quality
`quality_TL1[k, d]`. Two-sided, the frames between keys k and n are worth `two_sided_TL1[k, n - k]` together,
and those after the last key are propagated from it alone. Nothing else is known or needed: a schedule that
took the engine minutes is valued in microseconds, with the engine's own numbers.

What "not known" means:
- a frame whose key quality is NaN has no truth (no label): it counts nowhere;
- a key whose row is NaN beyond d = 0 has not been tabulated (thinned): no schedule may use it.

Legend: T frames, L horizon, m keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidseg_core.config.catalogue import KEEPS_MAPS_FROM, MAP_SETS
from vidseg_core.config.errors import nearest
from vidseg_core.episodes.features import shape_in
from vidseg_core.episodes.table import EpisodeError, EpisodeTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A schedule's way through one segment, one-sided."""

    keys_m: np.ndarray
    """int64, increasing; the first is 0."""
    quality_T: np.ndarray
    """float32 [T]: each frame's quality; NaN for frames without truth."""

    @property
    def frames(self) -> int:
        return len(self.quality_T)

    @property
    def aki(self) -> float:
        """Average key interval: frames over keys (DVRL section 4.2)."""
        return self.frames / len(self.keys_m)

    @property
    def total(self) -> float:
        """Sum over the frames that count."""
        return float(np.nansum(self.quality_T, dtype=np.float64))

    @property
    def mean(self) -> float:
        """Mean over the frames that count; NaN if none does."""
        counted = int((~np.isnan(self.quality_T)).sum())
        return self.total / counted if counted else float("nan")


def counts_T(table: EpisodeTable) -> np.ndarray:
    """bool [T]: the frame has a truth, so that its quality counts."""
    return np.isfinite(table.key_quality_T)


def known_keys_T(table: EpisodeTable) -> np.ndarray:
    """bool [T]: the frame's row has been tabulated, so that a schedule may have a key there."""
    after = _truth_after(table)
    lacking = (after & np.isnan(table.quality_TL1))[:, 1:].any(axis=1)
    return np.logical_not(lacking)


def walk(table: EpisodeTable, keys: Sequence[int] | np.ndarray, *, delay: int = 0) -> Walk:
    """The qualities of all frames under these keys; `EpisodeError` for keys that the table cannot value.

    `delay`: with low latency the frames after which a key's own result takes effect (`engine.late`). Until
    then a frame counts as carried from the key before, in one step; the engine takes two, over the new key.
    """
    keys_m = checked_keys(table, keys)
    used_from_m = used_from(keys_m, table.frames, delay)
    ordinal_T = np.arange(table.frames)
    key_T = keys_m[np.searchsorted(used_from_m, ordinal_T, side="right") - 1]
    distance_T = ordinal_T - key_T
    if distance_T.max() > table.horizon:
        raise EpisodeError(
            f"{_name(table)}: with a delay of {delay} a frame is {distance_T.max()} frames from what it "
            f"shows, the table knows up to {table.horizon} (its horizon)"
        )
    return Walk(keys_m=keys_m, quality_T=table.quality_TL1[key_T, distance_T])


def used_from(keys_m: np.ndarray, frames: int, delay: int) -> np.ndarray:
    """Of each key the frame from which its own result is used."""
    if not delay:
        return keys_m
    following_m = np.append(keys_m[2:], frames)[: len(keys_m) - 1]
    return np.append(0, np.minimum(keys_m[1:] + delay, following_m))


def two_sided_total(table: EpisodeTable, keys: Sequence[int] | np.ndarray) -> float:
    """Sum of the qualities of all frames that count, two-sided between keys, one-sided after the last."""
    keys_m = checked_keys(table, keys)
    two_TL1 = two_sided_of(table)
    between = two_TL1[keys_m[:-1], np.diff(keys_m)]
    if np.isnan(between).any():
        bad = int(np.flatnonzero(np.isnan(between))[0])
        raise EpisodeError(
            f"{_name(table)}: the interval from key {keys_m[bad]} to key {keys_m[bad + 1]} "
            "is not in the two-sided table"
        )
    last = keys_m[-1]
    tail = table.quality_TL1[last, : table.frames - last]
    at_keys = table.key_quality_T[keys_m[:-1]]
    return float(sum(np.nansum(part, dtype=np.float64) for part in (at_keys, between, tail)))


def two_sided_of(table: EpisodeTable) -> np.ndarray:
    """The two-sided table; `EpisodeError` if there is none."""
    if table.two_sided_TL1 is None:
        raise EpisodeError(f"{_name(table)}: no two-sided table; build one with --two_sided_stride")
    return table.two_sided_TL1


def checked_keys(table: EpisodeTable, keys: Sequence[int] | np.ndarray) -> np.ndarray:
    """The keys as an int64 array; `EpisodeError` unless they are a schedule that the table knows."""
    keys_m = np.asarray(keys, dtype=np.int64)
    if keys_m.ndim != 1 or not len(keys_m) or keys_m[0] != 0 or (np.diff(keys_m) < 1).any():
        raise EpisodeError(f"{_name(table)}: keys must increase from 0, not {keys_m.tolist()[:5]}...")
    if keys_m[-1] >= table.frames:
        raise EpisodeError(f"{_name(table)}: key {keys_m[-1]} of {table.frames} frames")
    intervals_m = np.diff(np.append(keys_m, table.frames))
    if (intervals_m > table.horizon).any():
        far = int(np.argmax(intervals_m))
        raise EpisodeError(
            f"{_name(table)}: the interval of key {keys_m[far]} has {intervals_m[far]} frames, "
            f"the table knows up to {table.horizon} (its horizon)"
        )
    unknown = keys_m[~known_keys_T(table)[keys_m]]
    if len(unknown):
        raise EpisodeError(f"{_name(table)}: key {unknown[0]} is not in the table (thinned)")
    return keys_m


def fixed_keys(frames: int, interval: int) -> np.ndarray:
    """A key every `interval` frames, as the scheduler `fixed` has them."""
    return np.arange(0, frames, interval, dtype=np.int64)


def even_keys(frames: int, keys: int) -> np.ndarray:
    """`keys` keys, as evenly as whole frames allow."""
    return (np.arange(keys, dtype=np.int64) * frames) // keys


def feature(table: EpisodeTable, name: str) -> np.ndarray:
    """float32 [T, L + 1]: one deviation feature; unknown names suggest the nearest."""
    if name not in table.feature_names:
        hint = nearest(name, table.feature_names)
        raise EpisodeError(f"{_name(table)}: no feature {name!r}{hint}; see build-episodes --features")
    return table.deviation_TL1F[..., table.feature_names.index(name)]


def with_features(table: EpisodeTable, names: Sequence[str]) -> EpisodeTable:
    """The table with these deviation features only, in this order; or with one set of maps in their place."""
    maps = [name for name in names if name in MAP_SETS]
    if maps:
        if len(names) > 1:
            raise EpisodeError(f"maps ({maps[0]}) are read alone, not with {', '.join(names[:3])}")
        if maps[0] not in table.maps_GL1M:
            shape_in(table.fingerprint, maps[0])
            raise EpisodeError(
                f"{_name(table)}: maps of {maps[0]} are not kept in these tables (they are with --key_stride "
                f"{KEEPS_MAPS_FROM} or more, but for those of conv4 and conv5)"
            )
        return replace(table, read_map=maps[0])
    columns = [feature(table, name) for name in names]
    return replace(table, deviation_TL1F=np.stack(columns, axis=-1), feature_names=tuple(names))


def _truth_after(table: EpisodeTable) -> np.ndarray:
    """bool [T, L + 1]: frame k + d exists and counts."""
    padded = np.concatenate([counts_T(table), np.zeros(table.horizon, dtype=bool)])
    return np.lib.stride_tricks.sliding_window_view(padded, table.horizon + 1)


def _name(table: EpisodeTable) -> str:
    return f"clip {table.clip}, segment {table.segment}"
