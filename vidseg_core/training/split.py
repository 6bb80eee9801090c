"""Episode tables for learning: those to train on and those to validate on, split by clip.

Invariant: clips, not frames, are split.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidseg_core.config.errors import ConfigError, nearest
from vidseg_core.config.words import count
from vidseg_core.episodes.features import spelled_out
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_set import TableSet, join_tables
from vidseg_core.episodes.walk import with_features


def open_tables(
    path: str, val_clips: Sequence[str], val_share: float, seed: int, features: Sequence[str] = ()
) -> tuple[TableSet, TableSet | None]:
    """Training and validation tables, split by clip, with these features (none named: all).

    `EpisodeError`, or `ConfigError` for a bad split.
    """
    tables = load_tables(path)
    if features:
        tables = [with_features(t, spelled_out(features, t.feature_names)) for t in tables]
    clips = sorted({table.clip for table in tables})
    chosen = _validation_clips(clips, val_clips, val_share, seed)
    return _join(tables, [c for c in clips if c not in chosen]), _join(tables, chosen) if chosen else None  # type: ignore[return-value]


def _join(tables: Sequence[EpisodeTable], clips: Sequence[str]) -> TableSet:
    return join_tables([table for table in tables if table.clip in clips])


def _validation_clips(clips: list[str], named: Sequence[str], share: float, seed: int) -> list[str]:
    for clip in named:
        if clip not in clips:
            raise ConfigError("--val_clips", f"there are no tables of clip {clip!r}{nearest(clip, clips)}")
    if set(named) >= set(clips):
        raise ConfigError("--val_clips", "names every clip; nothing is left to train on")
    if named or share == 0 or len(clips) == 1:
        return sorted(set(named))
    count = min(max(1, round(share * len(clips))), len(clips) - 1)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 3))))
    return sorted(clips[number] for number in rng.permutation(len(clips))[:count])


def describe_split(training: TableSet, validation: TableSet | None) -> str:
    """The data in one phrase."""
    checked = (
        f"{count(len(set(validation.clips)), 'clip')}, {int(validation.frames_C.sum()):,} frames"
        if validation is not None
        else "none (one clip, or --val_share 0): the last weights are used"
    )
    return (
        f"{count(len(set(training.clips)), 'clip')}, {int(training.frames_C.sum()):,} frames, "
        f"{len(training.feature_names)} features, horizon {training.horizon}; validation: {checked}"
    )


def digests(training: TableSet, validation: TableSet | None) -> dict[str, str | None]:
    """What identifies the tables, for a run's fingerprint."""
    return {
        "tables": training.digest(),
        "validation": validation.digest() if validation is not None else None,
    }
