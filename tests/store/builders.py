"""Small runs with known rows, for every test of the store."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.engine import FrameResult
from vidseg_core.store import ObjectStore, commit_part, encode_part, encode_videos, part_key

CLASSES = 5
HEIGHT, WIDTH = 24, 40


def labels_of(frame: int, seed: int = 0) -> np.ndarray:
    """uint8 [24, 40]: bars and a block that depend on the frame number."""
    labels_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels_HW[:, (frame + seed) % WIDTH :] = 1
    labels_HW[5:15, 3 : 4 + frame % 30] = 2 + (frame + seed) % 3
    return labels_HW


def frame_row(frame: int, seed: int = 0) -> FrameResult:
    key = frame - frame % 6
    return FrameResult(
        frame_index=frame,
        pts_s=frame / 25,
        is_key=frame == key,
        key_frame_index=key,
        decision_score=float("nan") if frame == key else frame * 0.1,
        kar=1 / 6,
        lkd=frame - key,
        is_corrupt=frame % 17 == 3,
        labels_HW=labels_of(frame, seed),
    )


def put_parts(
    store: ObjectStore, video_id: str, lengths: Sequence[int], *, segment: int = 0, first: int = 0
) -> int:
    """Commit one part for each length (0: an empty part), frames from `first` on; returns the next frame."""
    for shard, length in enumerate(lengths):
        rows = [frame_row(first + i, len(video_id)) for i in range(length)]
        key = part_key(video_id, segment, shard)
        commit_part(store, key, encode_part(video_id, rows, n_classes=CLASSES, key=key))
        first += length
    return first


def video_row(video_id: str, frames: int, **changed: object) -> dict[str, object]:
    row: dict[str, object] = {
        "video_id": video_id,
        "uri": f"/films/{video_id}.mp4",
        "status": "ok",
        "reason": None,
        "codec": "h264",
        "width": 1280,
        "height": 720,
        "declared_frames": frames,
        "decoded_frames": frames,
        "corrupt_frames": 0,
        "keys": frames // 6,
        "aki": 6.0,
        "duration_s": frames / 25,
        "cpu_s": 1.5,
        "gpu_s": 0.0,
    }
    return row | changed


def put_run(store: ObjectStore, *, parts_of: int = 7, frames: int = 60) -> None:
    """A complete run of two videos, the first in two segments, cut into parts of `parts_of` frames."""
    half = frames // 2
    put_parts(store, "a-1f", _cut(half, parts_of))
    put_parts(store, "a-1f", [*_cut(half, parts_of), 0], segment=1, first=half)
    put_parts(store, "a", _cut(half, parts_of))
    store.put("videos/a-1f.parquet", encode_videos([video_row("a-1f", frames)]))
    store.put("videos/a.parquet", encode_videos([video_row("a", half)]))
    store.put("_state/video=a/00000-000001-000001.state", b"not a table")
    store.put("run.json", json.dumps({"schema_version": 1, "name": "test"}).encode())
    store.put("_SUCCESS", b"")


def flip(store: ObjectStore, key: str, at: int, bit: int = 0) -> None:
    """Change one bit of an object; a negative place counts from its end."""
    data = bytearray(store.get(key))
    data[at] ^= 1 << bit
    store.put(key, bytes(data))


def older_bytes(table: pa.Table) -> bytes:
    """A table as versions before wrote it: no checksums, in the footer only the schema's version."""
    sink = io.BytesIO()
    dictionary: Any = [name for name in table.column_names if name in ("video_id", "mask_codec")]
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", use_dictionary=dictionary, store_schema=False
    ) as file:
        file.add_key_value_metadata({b"vidseg.schema_version": b"1"})
        file.write_table(table, row_group_size=32)
    return sink.getvalue()


def _cut(frames: int, parts_of: int) -> list[int]:
    return [min(parts_of, frames - at) for at in range(0, frames, parts_of)]
