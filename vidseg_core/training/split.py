"""Episode tables for learning: those to train on and those to validate on, split by clip.

Invariant: clips, not frames, are split; the regions of a clip stay together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidseg_core.config.errors import ConfigError, nearest
from vidseg_core.config.words import count
from vidseg_core.episodes.features import MAP_SHAPES, knows_maps, spelled_out
from vidseg_core.episodes.store import load_tables
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.table_set import TableSet, join_tables
from vidseg_core.episodes.walk import with_features


def open_tables(
    path: str,
    val_clips: Sequence[str],
    val_share: float,
    seed: int,
    features: Sequence[str] = (),
    *,
    map_net: bool = False,
) -> tuple[TableSet, TableSet | None]:
    """Training and validation tables, split by clip, with these features (none named: all; for a net that
    reads a map, the map that there is).

    `EpisodeError`, or `ConfigError` for a bad split.
    """
    tables = load_tables(path)
    if map_net and not features:
        features = only_map(tables[0])
    if features:
        tables = [with_features(t, chosen_features(t, features)) for t in tables]
    training, held = split_by_clip(tables, val_clips, val_share, seed)
    return join_tables(training), join_tables(held) if held else None


def split_by_clip(
    tables: Sequence[EpisodeTable], val_clips: Sequence[str], val_share: float, seed: int
) -> tuple[list[EpisodeTable], list[EpisodeTable]]:
    """Those to train on and those to validate on; `ConfigError` for a bad split."""
    clips = sorted({table.video for table in tables})
    chosen = _validation_clips(clips, val_clips, val_share, seed)
    training = [table for table in tables if table.video not in chosen]
    return training, [table for table in tables if table.video in chosen]


def chosen_features(table: EpisodeTable, features: Sequence[str]) -> tuple[str, ...]:
    """The table's names for these features and sets."""
    return spelled_out(features, table.feature_names, maps=knows_maps(table.fingerprint))


def only_map(table: EpisodeTable) -> tuple[str, ...]:
    """The set of maps that the table was made for, if it is one; `EpisodeError` if there are several."""
    there = tuple(part.partition("=")[0] for part in table.fingerprint.get(MAP_SHAPES, "").split())
    if len(there) > 1:
        raise EpisodeError(f"the tables have maps of {', '.join(there)}: say which with --features")
    return there


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
        f"{count(len(set(validation.videos)), 'clip')}, {int(validation.frames_C.sum()):,} frames"
        if validation is not None
        else "none (one clip, or --val_share 0): the last weights are used"
    )
    return (
        f"{count(len(set(training.videos)), 'clip')}, {int(training.frames_C.sum()):,} frames, "
        f"{_seen_in_words(training)}, horizon {training.horizon}; validation: {checked}"
    )


def _seen_in_words(tables: TableSet) -> str:
    if tables.maps_GL1M is None:
        return f"{len(tables.feature_names)} features"
    return f"maps of {tables.feature_names[0]}"


def digests(training: TableSet, validation: TableSet | None) -> dict[str, str | None]:
    """What identifies the tables, for a run's fingerprint."""
    return {
        "tables": training.digest(),
        "validation": validation.digest() if validation is not None else None,
    }
