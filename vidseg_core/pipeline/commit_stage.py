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

import cv2
import numpy as np
import pyarrow as pa

from vidseg_core.pipeline import telemetry
from vidseg_core.pipeline.rows import PartMessage, Receipt, labels_of, messages, to_table
from vidseg_core.store.keys import part_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.parts import FrameRow, commit_part, encode_part
from vidseg_core.store.schema import FRAMES_SCHEMA, PSEUDO_SCHEMA


class CommitStage:
    """The commit function of a branch; small and picklable."""

    def __init__(self, store: ObjectStore, n_classes: int, *, confidence: bool = False) -> None:
        self._store = store
        self._n_classes = n_classes
        self._schema = PSEUDO_SCHEMA if confidence else FRAMES_SCHEMA

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Commit every part of ``batch``; one receipt each."""
        for part, blob in messages(batch, PartMessage):
            yield to_table(self.commit(part, labels_of(part, blob) if part.part >= 0 else ()))

    def commit(self, part: PartMessage, labels_THW: Sequence[np.ndarray] | np.ndarray) -> Receipt:
        """Write one part (uint8 label maps, as many as the part has frames) and say so."""
        receipt = Receipt(video_id=part.video_id, segment=part.segment, part=part.part)
        receipt.closed, receipt.fatal, receipt.totals = part.closes_segment, part.fatal, part.totals
        receipt.drained = part.drained
        if part.part < 0:
            return receipt
        started = time.perf_counter()
        key = part_key(part.video_id, part.segment, part.part)
        rows = _rows(part, labels_THW)
        data = encode_part(part.video_id, rows, n_classes=self._n_classes, schema=self._schema, key=key)
        result = commit_part(self._store, key, data)
        receipt.frames = len(part.frame_index)
        receipt.keys = sum(part.is_key)
        receipt.labelled = sum(share for share in part.confident_share if share == share)
        receipt.created, receipt.bytes = result.created, len(data)
        receipt.commit_s = time.perf_counter() - started
        telemetry.count("frames", receipt.frames)
        telemetry.count("keys", receipt.keys)
        telemetry.observe("commit_seconds", receipt.commit_s)
        return receipt


def _rows(part: PartMessage, labels_THW: Sequence[np.ndarray] | np.ndarray) -> list[FrameRow]:
    return [
        FrameRow(
            frame_index=part.frame_index[t],
            pts_s=part.pts_s[t],
            is_key=part.is_key[t],
            key_frame_index=part.key_frame_index[t],
            decision_score=part.decision_score[t],
            kar=part.kar[t],
            lkd=part.lkd[t],
            is_corrupt=part.is_corrupt[t],
            labels_HW=_at_source_size(labels_THW[t], part),
            confidence=part.confidence[t],
            confident_share=part.confident_share[t],
        )
        for t in range(len(part.frame_index))
    ]


def _at_source_size(labels_HW: np.ndarray, part: PartMessage) -> np.ndarray:
    """Nearest-neighbour copy at the source's size when the run asks for it (``source_height`` > 0)."""
    if part.source_height == 0 or labels_HW.shape == (part.source_height, part.source_width):
        return labels_HW
    size = (part.source_width, part.source_height)
    return cv2.resize(labels_HW, size, interpolation=cv2.INTER_NEAREST)


def commit_parts(batch: pa.Table, stage: CommitStage) -> Iterator[pa.Table]:
    """Ray Data function of the commit stage."""
    yield from stage(batch)
