"""Maps of pairs that tables do not keep (all but `catalogue.KEPT_MAPS`), made again from their pictures.

Model: pairs are drawn from all tables, as many as are asked for, and the flow net of the tables looks at
their pictures once. Invariant: the maps are those that the engine hands a scheduler, bit by bit; which pairs
are drawn depends on the seed and the tables alone.

Legend: W pairs, M values of a map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import psutil

from vidseg_core.config.catalogue import MAP_LAYERS, MAP_SHAPE
from vidseg_core.config.errors import ConfigError, check
from vidseg_core.episodes.features import shape_in
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.table_set import TableSet, join_tables
from vidseg_core.models.policy_trunk import map_shape
from vidseg_core.propagation.net_flow import NetFlow
from vidseg_core.scheduling.pair_maps import MAPS_DIGEST
from vidseg_core.training.decision_loop import Lessons, Samples
from vidseg_core.training.policy_loop import known_pairs, sample_cells

VALIDATION_SHARE = 0.25
"""Of the pairs that are trained on, so many more are made for validation."""
AT_A_TIME = 64
MEMORY_SHARE = 0.5
"""Of the machine's free memory that the maps may take."""


def are_made(tables: Sequence[EpisodeTable], name: str) -> bool:
    """Must maps of this set be made? `EpisodeError` if the tables keep neither them nor pictures."""
    shape_in(tables[0].fingerprint, name)
    if all(name in table.maps_GL1M for table in tables):
        return False
    if name not in MAP_LAYERS:
        raise EpisodeError(f"maps of {name} are in tables of --key_stride 4 or more only: build them so")
    if any(table.views_Thwc is None for table in tables):
        raise EpisodeError(
            f"clip {tables[0].clip}: the table has neither maps of {name} nor pictures to make them"
        )
    return True


def flow_of(fingerprint: Mapping[str, str], weights: str | None, seed: int) -> NetFlow:
    """The flow net of the tables; `ConfigError` unless these are its weights."""
    flow = NetFlow(fingerprint["propagation.flow"], weights=weights, seed=seed)
    problem = f"must be the weights that the tables were made with ({fingerprint['propagation.flow']})"
    if flow.digest != fingerprint.get(MAPS_DIGEST):
        raise ConfigError("--flow_weights", problem)
    return flow


def require_room(training: TableSet, held: TableSet | None, name: str, pairs: int) -> tuple[int, int]:
    """Pairs that are learned from, and bytes of their maps and of those of validation; `ConfigError` where
    that is more than the machine has free."""
    each = 2 * math.prod(map_shape(shape_in(training.fingerprint, name)))
    learned = known_pairs(training, pairs)
    size = each * (learned + (known_pairs(held, held_pairs(pairs)) if held else 0))
    room = int(MEMORY_SHARE * psutil.virtual_memory().available)
    problem = (
        f"{learned:,} maps of {name} take {_gb(size)} GB of memory, but {_gb(room)} GB may be taken here"
    )
    check(size <= room, "--map_pairs", problem)
    return learned, size


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}"


def held_pairs(pairs: int) -> int:
    """How many are made for validation."""
    return max(1, int(pairs * VALIDATION_SHARE))


def made_lessons(
    training: Sequence[EpisodeTable],
    held: Sequence[EpisodeTable],
    name: str,
    flow: NetFlow,
    *,
    pairs: int,
    seed: int,
) -> Lessons:
    """What a decision net learns from: `pairs` pairs of the tables."""
    fingerprint = training[0].fingerprint
    return Lessons(
        feature_names=(name,),
        fingerprint={**fingerprint, MAP_SHAPE: shape_in(fingerprint, name)},
        training=_made(training, name, flow, pairs, seed),
        validation=_made(held, name, flow, held_pairs(pairs), seed) if held else None,
        scale_WF=None,
    )


def _made(tables: Sequence[EpisodeTable], name: str, flow: NetFlow, pairs: int, seed: int) -> Samples:
    cells_W, quality_W = sample_cells(join_tables(tables), seed, pairs)
    maps_WM = maps_at(tables, cells_W, (name,), flow)[name]
    return Samples(quality_W=quality_W, seen=lambda places_B: maps_WM[places_B].astype(np.float32))


def maps_at(
    tables: Sequence[EpisodeTable], cells_W: np.ndarray, names: Sequence[str], flow: NetFlow
) -> dict[str, np.ndarray]:
    """Set of maps -> maps_WM float16 of the pairs at these cells of the joined tables.

    One pass of the net serves all sets."""
    views = [view for table in tables if table.views_Thwc is not None for view in table.views_Thwc]
    row_W, distance_W = np.divmod(cells_W, min(table.horizon for table in tables) + 1)
    layers = {name: MAP_LAYERS[name] for name in names}
    shapes = {name: map_shape(shape_in(tables[0].fingerprint, name)) for name in names}
    found = {name: np.empty((len(cells_W), math.prod(shapes[name])), np.float16) for name in names}
    for start in range(0, len(cells_W), AT_A_TIME):
        rows, distances = row_W[start : start + AT_A_TIME], distance_W[start : start + AT_A_TIME]
        current = [views[row + distance] for row, distance in zip(rows, distances, strict=True)]
        made = flow.maps(current, [views[row] for row in rows], tuple(layers.values()))
        for name, layer in layers.items():
            found[name][start : start + AT_A_TIME] = [maps[layer].reshape(-1) for maps in made]
    return found
