"""An evaluation, read back: its tables, the masks of any method, and the frames where the data still is.

Only finished cells are shown; a run that was cut off has no tables yet, and says so.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from vidseg_core.datasets.records import DatasetError, Record
from vidseg_core.episodes.sources import dataset_of
from vidseg_core.evaluation.cells import (
    EVALUATION_VERSION,
    list_cells,
    read_cell,
    read_manifest,
    read_net,
)
from vidseg_core.evaluation.clips import items_of
from vidseg_core.evaluation.tables import (
    FRAMES_SCHEMA,
    LATER,
    METHODS_SCHEMA,
    QUARANTINE_SCHEMA,
    RESULTS_SCHEMA,
)
from vidseg_core.media import MediaError
from vidseg_core.plan.ids import safe_video_id
from vidseg_core.store.errors import StoreError
from vidseg_core.store.keys import (
    FRAMES_KEY,
    METHODS_KEY,
    QUARANTINE_KEY,
    RESULTS_KEY,
    RUN_KEY,
    SUCCESS_KEY,
    CellKey,
)
from vidseg_core.store.mask_codec import decode_mask
from vidseg_core.store.objects import ObjectStore, open_store
from vidseg_core.store.small_files import NUMBER, Shape, read_object, read_table

Row = dict[str, Any]
_RUN_SHAPE: Shape = {
    "config!": {"segmenter!": str, "data!": [str], "split!": str, "working_size!": (str, int), "fps": NUMBER},
    "fingerprint!": {},
    "class_names!": [str],
    "cells!": {},
}
_TABLES = {
    RESULTS_KEY: RESULTS_SCHEMA,
    METHODS_KEY: METHODS_SCHEMA,
    FRAMES_KEY: FRAMES_SCHEMA,
    QUARANTINE_KEY: QUARANTINE_SCHEMA,
}
_REMEDY = "the same vidseg evaluate writes it again"


def open_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """The evaluation at a local path or `s3://bucket/prefix`; `StoreError` if there is none."""
    store = open_store(path)
    version = read_manifest(store)["version"]
    if not store.exists(RUN_KEY):
        cells = len(list_cells(store))
        raise StoreError(
            f"{store.root}: this evaluation was never finished ({cells} cells are there, no tables yet); "
            "run the same vidseg evaluate again"
        )
    return Evaluation(store, version)


@dataclass(frozen=True)
class Evaluation:
    """Read access to one output of `vidseg evaluate`."""

    store: ObjectStore
    version: int = EVALUATION_VERSION
    """Version 2 left occluded pixels out of its `tc`: that is `tc_visible` here, and there is no `tc`."""

    @property
    def path(self) -> str:
        return self.store.root

    @property
    def complete(self) -> bool:
        """Whether the last command came to its end."""
        return self.store.exists(SUCCESS_KEY)

    @cached_property
    def info(self) -> Row:
        """The content of `run.json`."""
        return read_object(self.store, RUN_KEY, _RUN_SHAPE, _REMEDY)

    @property
    def config(self) -> Row:
        return self.info["config"]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.info["class_names"])

    @property
    def has_labels(self) -> bool:
        return any(not _none(row["miou"]) for row in self.methods)

    @property
    def quality(self) -> str:
        """The column that counts: `miou` where there are labels, else `fidelity`."""
        return "miou" if self.has_labels else "fidelity"

    @cached_property
    def results(self) -> list[Row]:
        """A row for each clip and method."""
        return self._table(RESULTS_KEY)

    @cached_property
    def methods(self) -> list[Row]:
        """A row for each method, over all clips."""
        return self._table(METHODS_KEY)

    @cached_property
    def quarantine(self) -> list[Row]:
        return self._table(QUARANTINE_KEY)

    @cached_property
    def frames(self) -> dict[tuple[str, str], dict[str, np.ndarray]]:
        """(clip, method_id) -> columns of its frames, in order."""
        table = self._read(FRAMES_KEY)
        found: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        clips, ids = table.column("clip").to_pylist(), table.column("method_id").to_pylist()
        names = [n for n in table.column_names if n not in ("clip", "method", "point", "method_id")]
        columns = {name: table.column(name).to_numpy(zero_copy_only=False) for name in names}
        edges = [i for i in range(len(clips)) if i == 0 or (clips[i], ids[i]) != (clips[i - 1], ids[i - 1])]
        for start, stop in zip(edges, [*edges[1:], len(clips)], strict=True):
            found[clips[start], ids[start]] = {name: col[start:stop] for name, col in columns.items()}
        return found

    @property
    def clips(self) -> list[str]:
        return list(dict.fromkeys(row["clip"] for row in self.results))

    def masks(self, clip: str, method_id: str, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        """uint8 labels_HW of these frames; frames that the cell does not have are left out."""
        key = self._cells.get((clip, method_id))
        if key is None:
            return {}
        _, table = read_cell(self.store, key, ("number", "height", "width", "mask"))
        wanted = set(numbers)
        place = [i for i, number in enumerate(table.column("number").to_pylist()) if number in wanted]
        rows = table.take(place).to_pylist()
        return {row["number"]: decode_mask(row["mask"], row["height"], row["width"]) for row in rows}

    def net_masks(self, clip: str, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        """N's own masks of these frames, where they were kept."""
        stamps = [
            info.key.rpartition("/")[2].removesuffix(".parquet")
            for info in self.store.list(f"net/clip={clip}/")
        ]
        rows = read_net(self.store, clip, stamps[-1])[0] if stamps else []
        wanted = set(numbers)
        return {
            row["number"]: decode_mask(row["mask"], row["height"], row["width"])
            for row in rows
            if row["number"] in wanted
        }

    def record(self, clip: str, number: int) -> Record | None:
        """The frame and its labels as they were seen; None where the data set is not here any more."""
        for source in self.config["data"]:
            try:
                dataset = dataset_of(source, self.config["working_size"])
                names = {item.video_id for item in dataset.items(self.config["split"])}
                video_id = next((name for name in names if safe_video_id(name) == clip), None)
                if video_id is None:
                    continue
                return dataset.read(items_of(source, self.config["split"], video_id)[number])
            except (DatasetError, MediaError, IndexError, OSError):
                continue
        return None

    @cached_property
    def _cells(self) -> dict[tuple[str, str], CellKey]:
        known = {str(key): key for key in list_cells(self.store)}
        keys = (known[text] for text in self.info["cells"] if text in known)
        return {(key.clip, key.method): key for key in keys}

    def _table(self, key: str) -> list[Row]:
        return self._read(key).to_pylist()

    def _read(self, key: str) -> pa.Table:
        schema = _TABLES[key]
        needed = [name for name in ("clip", "method", "method_id") if name in schema.names]
        later = [name for name in LATER if name in schema.names]
        where = f"{self.store.root}: {key}"
        table = read_table(self.store.get(key), where, _REMEDY, schema, needed, later)
        return table if self.version >= EVALUATION_VERSION else _as_today(table)


def _as_today(table: pa.Table) -> pa.Table:
    """A table of version 2, whose consistency is that of visible pixels, under today's names."""
    for name in ("tc", "tc_forward", "tc_pop"):
        visible = name.replace("tc", "tc_visible")
        if name in table.column_names:
            place, field = table.column_names.index(name), table.schema.field(name)
            if visible in table.column_names:
                there = table.column_names.index(visible)
                table = table.set_column(there, table.schema.field(visible), table[name])
            table = table.set_column(place, field, pa.nulls(table.num_rows, field.type))
    return table


def _none(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
