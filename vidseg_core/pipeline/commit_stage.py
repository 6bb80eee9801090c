"""Encode and commit: label maps in, one Parquet object per part out, a small receipt to the driver.

On a GPU this is a stage of its own, in CPU tasks, so that the net never waits for zstd or for the object
store. On CPU the engine actor does it itself: label maps that never leave a process need no shared memory
(about a tenth of the job's CPU time with a free net, `benchmarks.plumbing`).

A part's name and bytes follow from its content alone, so writing it twice is harmless: the second writer
finds it there, compares digests and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from vidseg_core.config.regions import RegionsConfig
from vidseg_core.pipeline import telemetry
from vidseg_core.pipeline.rows import PartMessage, Receipt, frames_of, messages, to_table
from vidseg_core.store.keys import part_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.parts import commit_part, encode_part
from vidseg_core.store.schema import frames_table

_BY_REGION = ("region_keys", "region_key_frame_index", "region_scores")


class CommitStage:
    """The commit function of a branch; small and picklable."""

    def __init__(
        self,
        store: ObjectStore,
        n_classes: int,
        *,
        confidence: bool = False,
        regions: RegionsConfig | None = None,
    ) -> None:
        """`regions`: None where a frame is one."""
        self._store = store
        self._n_classes = n_classes
        self._schema = frames_table(confidence=confidence, regions=regions is not None)
        self._columns = 1 if regions is None else regions.shape[1]

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Commit every part of ``batch``; one receipt each."""
        for row, (part, blob) in enumerate(messages(batch, PartMessage)):
            labels = np.frombuffer(blob, dtype=np.uint8)
            labels_THW = labels.reshape(-1, part.height, part.width) if labels.size else labels
            yield to_table(self.commit(part, frames_of(batch, row, labels_THW)))

    def commit(self, part: PartMessage, frames: Sequence[Any]) -> Receipt:
        """Write the frames (`engine.FrameResult`, or what has its fields) as one part and say so."""
        receipt = Receipt(video_id=part.video_id, segment=part.segment, part=part.part)
        receipt.closed, receipt.fatal, receipt.totals = part.closes_segment, part.fatal, part.totals
        receipt.drained = part.drained
        if part.part < 0:
            return receipt
        started = time.perf_counter()
        key = part_key(part.video_id, part.segment, part.part)
        rows = [self._as_shown(frame, part) for frame in frames] if part.source_height else frames
        data = encode_part(part.video_id, rows, n_classes=self._n_classes, schema=self._schema, key=key)
        result = commit_part(self._store, key, data)
        receipt.frames = len(frames)
        receipt.keys = sum(frame.is_key for frame in frames)
        receipt.labelled = sum(f.confident_share for f in frames if f.confident_share == f.confident_share)
        receipt.created, receipt.bytes = result.created, len(data)
        receipt.commit_s = time.perf_counter() - started
        telemetry.count("frames", receipt.frames)
        telemetry.count("keys", receipt.keys)
        telemetry.observe("commit_seconds", receipt.commit_s)
        return receipt

    def _as_shown(self, frame: Any, part: PartMessage) -> Any:
        """The frame with a mask that lies on the picture as players show it, and its regions as they do."""
        shown, size = copy(frame), (part.source_height, part.source_width)
        shown.labels_HW = labels_as_shown(frame.labels_HW, size, mirrored=part.mirrored)
        for name in _BY_REGION if part.mirrored and self._columns > 1 else ():
            setattr(shown, name, _rows_turned(getattr(frame, name), self._columns))
        return shown


def _rows_turned(values: Sequence[Any], columns: int) -> list[Any]:
    """What is said region by region, of the mirrored grid."""
    starts = range(0, len(values), columns)
    return [value for start in starts for value in reversed(values[start : start + columns])]


def labels_as_shown(labels_HW: np.ndarray, size: tuple[int, int], *, mirrored: bool) -> np.ndarray:
    """Labels as the net sees a frame, as they lie on the picture: of this height and width (nearest)."""
    if labels_HW.shape != size:
        labels_HW = cv2.resize(labels_HW, size[::-1], interpolation=cv2.INTER_NEAREST)
    return np.ascontiguousarray(labels_HW[:, ::-1]) if mirrored else labels_HW


def commit_parts(batch: pa.Table, stage: CommitStage) -> Iterator[pa.Table]:
    """Ray Data function of the commit stage."""
    yield from stage(batch)
