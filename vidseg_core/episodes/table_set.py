"""All tables that a policy learns from, one after the other: what a step of many walkers indexes into.

Model: frame k of table c has row `first[c] + k`; a pair (k, k + d) has the cell `row * (L + 1) + d`. A set is
made of plain arrays, so that Ray's object store hands the same read-only memory to every process.

Where a set of maps is read in place of the features (`walk.with_features`), the F values of a pair are those
of its map, and `deviation_RL1F` is not looked at.

Legend: R rows (frames of all tables), L horizon (L1 = L + 1), F deviation features, C tables, G frames that
may be key, M values of a map, W pairs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidseg_core.config.catalogue import MAP_SHAPE
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.regions import video_of
from vidseg_core.episodes.features import MAP_SHAPES, shape_in
from vidseg_core.episodes.table import EpisodeError, EpisodeTable


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSet:
    """C tables of one fingerprint; unknown qualities stay NaN."""

    clips: tuple[str, ...]
    """Clip of each table."""
    first_C: np.ndarray
    """int64: first row of each table."""
    frames_C: np.ndarray
    """int64: rows of each table, T."""
    quality_RL1: np.ndarray
    deviation_RL1F: np.ndarray
    two_sided_RL1: np.ndarray | None
    behind_RL1: np.ndarray
    """float64 [R, L + 1]: sum of the known one-sided qualities at distances 1 to d - 1; 0 at d = 0 and 1."""
    feature_names: tuple[str, ...]
    fingerprint: Mapping[str, str]
    maps_GL1M: np.ndarray | None = None
    """float16: the maps that are read, of the frames that may be key; None: the features are read."""
    place_R: np.ndarray | None = None
    """int64: of each row its place among those frames."""

    @property
    def videos(self) -> tuple[str, ...]:
        """Video of each table: several regions of it may be clips."""
        regions = RegionsConfig.of_record(self.fingerprint)
        return tuple(video_of(clip, regions) for clip in self.clips)

    @property
    def values(self) -> int:
        """F of what `seen` gives."""
        return len(self.feature_names) if self.maps_GL1M is None else self.maps_GL1M.shape[2]

    @property
    def key_stride(self) -> int:
        """Every so many frames one may be key, from each table's first."""
        return int(self.fingerprint.get("key_stride") or 1)

    def seen(self, cells_W: np.ndarray) -> np.ndarray:
        """float32 [..., F] of these pairs."""
        if self.maps_GL1M is None:
            return self.deviation_RL1F.reshape(-1, len(self.feature_names))[cells_W]
        assert self.place_R is not None
        row_W, distance_W = np.divmod(cells_W, self.horizon + 1)
        return self.maps_GL1M[self.place_R[row_W], distance_W].astype(np.float32)

    @property
    def tables(self) -> int:
        """C."""
        return len(self.clips)

    @property
    def horizon(self) -> int:
        """L."""
        return self.quality_RL1.shape[1] - 1

    def digest(self) -> str:
        """Hex SHA-256 of every number in the set and of what it was made with."""
        about = [list(self.clips), self.frames_C.tolist(), list(self.feature_names), dict(self.fingerprint)]
        total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        read = self.deviation_RL1F if self.maps_GL1M is None else self.maps_GL1M
        for array in (self.quality_RL1, read, self.two_sided_RL1):
            total.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return total.hexdigest()


def join_tables(tables: Sequence[EpisodeTable]) -> TableSet:
    """The tables as one set, cut to the shortest horizon among them.

    `EpisodeError` names the clip that does not go with the others, has no second frame, knows no quality, or
    misses pairs of the frames that may be key.
    """
    if not tables:
        raise EpisodeError("there is no episode table to learn from")
    wide = min(table.horizon for table in tables) + 1
    if wide < 2:
        raise EpisodeError(f"clip {tables[0].clip}: a table with horizon 0 holds no decision")
    for table in tables:
        _check(table, tables[0], wide)
    quality_RL1 = _stack([table.quality_TL1[:, :wide] for table in tables])
    two_sided = [table.two_sided_TL1 for table in tables]
    known = [array[:, :wide] for array in two_sided if array is not None]
    frames_C = np.array([table.frames for table in tables], np.int64)
    about: dict[str, Any] = {
        "feature_names": tables[0].feature_names,
        "fingerprint": dict(tables[0].fingerprint),
    }
    return TableSet(
        clips=tuple(table.clip for table in tables),
        first_C=np.concatenate([[0], np.cumsum(frames_C)[:-1]]).astype(np.int64),
        frames_C=frames_C,
        quality_RL1=quality_RL1,
        deviation_RL1F=_stack([table.deviation_TL1F[:, :wide] for table in tables]),
        two_sided_RL1=_stack(known) if len(known) == len(tables) else None,
        behind_RL1=_behind(quality_RL1),
        **about | _maps_of(tables, wide),
    )


def _maps_of(tables: Sequence[EpisodeTable], wide: int) -> dict[str, Any]:
    """What is different where maps are read."""
    name = tables[0].read_map
    if not name:
        return {}
    keys_C = [len(table.maps_GL1M[name]) for table in tables]
    first_C = np.concatenate([[0], np.cumsum(keys_C)[:-1]])
    place_R = [
        first + np.arange(table.frames) // table.key_stride
        for first, table in zip(first_C, tables, strict=True)
    ]
    fingerprint = tables[0].fingerprint
    shape = {MAP_SHAPE: shape_in(fingerprint, name)} if MAP_SHAPES in fingerprint else {}
    return {
        "feature_names": (name,),
        "fingerprint": {**fingerprint, **shape},
        "maps_GL1M": _stack([table.maps_GL1M[name][:, :wide] for table in tables]),
        "place_R": np.concatenate(place_R).astype(np.int64),
    }


def _behind(quality_RL1: np.ndarray) -> np.ndarray:
    behind_RL1 = np.zeros(quality_RL1.shape)
    behind_RL1[:, 2:] = np.cumsum(np.nan_to_num(quality_RL1[:, 1:-1].astype(np.float64)), axis=1)
    return behind_RL1


def _stack(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))


def _check(table: EpisodeTable, first: EpisodeTable, wide: int) -> None:
    where = f"clip {table.clip}, segment {table.segment}"
    if dict(table.fingerprint) != dict(first.fingerprint):
        names = sorted(
            name
            for name in {*table.fingerprint, *first.fingerprint}
            if table.fingerprint.get(name) != first.fingerprint.get(name)
        )
        raise EpisodeError(f"{where}: made with another {', '.join(names)} than clip {first.clip}")
    if table.feature_names != first.feature_names:
        raise EpisodeError(f"{where}: has other deviation features than clip {first.clip}")
    if table.frames < 2:
        raise EpisodeError(f"{where}: has {table.frames} frame(s); an episode needs at least 2")
    if not np.isfinite(table.quality_TL1).any():
        raise EpisodeError(
            f"{where}: no frame has a known quality (are there labels? quality against the net's own masks, "
            "DVRL Eq. 2, needs none)"
        )
    distance_L = np.arange(1, wide)
    exists_TL = np.arange(table.frames)[:, None] + distance_L[None] < table.frames
    unknown_TL = np.isnan(table.deviation_TL1F[:, 1:wide]).any(axis=2) & exists_TL
    unknown_TL &= (np.arange(table.frames) % table.key_stride == 0)[:, None]
    if unknown_TL.any():
        k, d = (int(number) for number in np.argwhere(unknown_TL)[0])
        raise EpisodeError(
            f"{where}: nothing is known of frame {k + d + 1} after key {k}, which a schedule may visit"
        )
