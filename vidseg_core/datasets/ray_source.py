"""A split of a data set as a Ray Data source: frames are read in tasks, rows come in order.

Model: the items are cut into runs, one read task each: image files by the dozen, a video's frames so that
each task decodes one stretch forward. A task carries its items and the data set without its listing.
Invariant: the rows and their order depend on the data set alone, not on the cluster.

A row: `video_id`, `frame_index`, `height`, `width`, `frame` (raw RGB bytes), `labels` (raw bytes, one id a
pixel; null without labels) and `error` (null for a record that was read). `record_of` makes a `Record` of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from vidseg_core.datasets.records import DatasetError, FrameDataset, Item, Record

__all__ = ["ROW_SCHEMA", "FrameSource", "ray_dataset", "record_of"]

ROW_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("frame", pa.binary()),
        pa.field("labels", pa.binary()),
        pa.field("error", pa.string()),
    ]
)
IMAGES_PER_TASK = 64
VIDEO_FRAMES_PER_TASK = 512
BLOCK_BYTES = 32 << 20
"""Rows are handed on when they hold so much."""
RowErrors = Literal["raise", "skip", "row"]
"""What becomes of a record that cannot be read: the job ends; it is left out and counted in the worker's log;
it is a row whose `error` says why and whose `frame` is null."""

_log = logging.getLogger(__name__)


def ray_dataset(
    dataset: FrameDataset,
    split: str,
    *,
    labelled_only: bool = False,
    on_error: RowErrors = "raise",
    cpus_per_task: float = 1.0,
) -> ray.data.Dataset:
    """The frames of a split as rows (`ROW_SCHEMA`), sorted by video and frame, read when they are wanted.

    Raises `DatasetError` here for a split that is unknown or empty; a bad record shows as `on_error` says.
    """
    items = [item for item in dataset.items(split) if item.label is not None or not labelled_only]
    if not items:
        raise DatasetError(f"{dataset.name}: split {split!r} has no labelled frame")
    source = FrameSource(dataset, items, on_error)
    tasks = len(task_runs(items))
    rows = ray.data.read_datasource(source, num_cpus=cpus_per_task, override_num_blocks=tasks)
    rows.context.execution_options.preserve_order = True
    return rows


def record_of(row: Mapping[str, Any]) -> Record:
    """The record in a row; `DatasetError` if the row says that it could not be read."""
    if row["error"] is not None:
        raise DatasetError(row["error"])
    height, width = int(row["height"]), int(row["width"])
    frame_HW3 = np.frombuffer(row["frame"], dtype=np.uint8).reshape(height, width, 3)
    labels = row["labels"]
    return Record(
        video_id=str(row["video_id"]),
        frame_index=int(row["frame_index"]),
        frame_HW3=frame_HW3,
        labels_HW=None if labels is None else np.frombuffer(labels, dtype=np.uint8).reshape(height, width),
    )


class FrameSource(Datasource):
    """Read tasks over items of a data set."""

    def __init__(self, dataset: FrameDataset, items: Sequence[Item], on_error: RowErrors = "raise") -> None:
        super().__init__()
        self._dataset, self._items = dataset, items
        self._on_error: RowErrors = on_error

    def get_name(self) -> str:
        return f"Frames of {self._dataset.name}"

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown before a frame is read."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task for each run of items; `parallelism` is not heeded, since runs decide what is decoded."""
        return [self._task(run, per_task_row_limit) for run in task_runs(self._items)]

    def _task(self, run: Sequence[Item], limit: int | None) -> ReadTask:
        rows = None if self._on_error == "skip" else len(run)
        metadata = BlockMetadata(num_rows=rows, size_bytes=None, input_files=None, exec_stats=None)
        read = _reader(self._dataset, run, self._on_error)
        return ReadTask(read, metadata, schema=ROW_SCHEMA, per_task_row_limit=limit)


def task_runs(items: Sequence[Item]) -> list[list[Item]]:
    """Items cut for one task each, in order: never two videos together, a long video in stretches."""
    runs: list[list[Item]] = []
    images: list[Item] = []
    for _, group in groupby(items, key=lambda item: item.image):
        same = list(group)
        if len(same) == 1:
            images += same
            continue
        runs += _cut(images, IMAGES_PER_TASK)
        runs += _cut(same, VIDEO_FRAMES_PER_TASK)
        images = []
    return runs + _cut(images, IMAGES_PER_TASK)


def _cut(items: list[Item], length: int) -> list[list[Item]]:
    return [items[start : start + length] for start in range(0, len(items), length)]


def _reader(
    dataset: FrameDataset, run: Sequence[Item], on_error: RowErrors
) -> Callable[[], Iterable[pa.Table]]:
    return lambda: _blocks(dataset, run, on_error)


def _blocks(dataset: FrameDataset, run: Sequence[Item], on_error: RowErrors) -> Iterator[pa.Table]:
    rows: list[dict[str, Any]] = []
    held, skipped = 0, []
    for item in run:
        try:
            row = _row(dataset.read(item))
        except DatasetError as error:
            if on_error == "raise":
                raise
            skipped.append(str(error))
            row = _bad_row(item, str(error))
            if on_error == "skip":
                continue
        rows.append(row)
        held += len(row["frame"] or b"")
        if held >= BLOCK_BYTES:
            yield pa.Table.from_pylist(rows, schema=ROW_SCHEMA)
            rows, held = [], 0
    if rows:
        yield pa.Table.from_pylist(rows, schema=ROW_SCHEMA)
    if skipped:
        _log.warning("%d of %d records cannot be read, the first: %s", len(skipped), len(run), skipped[0])


def _row(record: Record) -> dict[str, Any]:
    height, width = record.frame_HW3.shape[:2]
    return {
        "video_id": record.video_id,
        "frame_index": record.frame_index,
        "height": height,
        "width": width,
        "frame": record.frame_HW3.tobytes(),
        "labels": None if record.labels_HW is None else record.labels_HW.tobytes(),
        "error": None,
    }


def _bad_row(item: Item, error: str) -> dict[str, Any]:
    place = {"video_id": item.video_id, "frame_index": item.frame_index, "height": 0, "width": 0}
    return {**place, "frame": None, "labels": None, "error": error}
