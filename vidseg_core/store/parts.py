"""Rows of frames to the bytes of a part, and the commit that makes a part count.

Invariant: the bytes depend on the rows alone (fixed writer options, no time stamps, no random names), so a
part that is computed again, by any worker, after any crash, is the same object, and a commit that finds one
can check that. What is listed is committed; there is no other record of progress.

Legend: `_HW` height, width.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidseg_core.store.checked import damaged, seal, seal_fields, why_damaged
from vidseg_core.store.errors import CommitConflict, StoreError
from vidseg_core.store.keys import (
    FRAMES_PREFIX,
    STATE_PREFIX,
    PartKey,
    StateKey,
    frames_prefix,
    parse_part_key,
    parse_state_key,
    states_prefix,
)
from vidseg_core.store.mask_codec import MASK_CODEC, encode_runs, label_runs
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.schema import FRAMES_SCHEMA, VIDEOS_SCHEMA

NO_TIME_GIVEN = "not_given"
"""Reason for a frame without a time: the container gives it none."""
ROW_GROUP_ROWS = 32
"""Rows decompressed to look at one frame."""
MOST_CLASSES = 256
"""A mask is of 8 bits."""


class FrameLike(Protocol):
    """A frame with its mask; every other column of the schema that is not made here is an attribute of it.

    In a column that may be null, NaN and an attribute that is not there are stored as null.
    """

    @property
    def frame_index(self) -> int: ...
    @property
    def pts_s(self) -> float: ...
    @property
    def labels_HW(self) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What became of a commit."""

    created: bool
    """False: the same bytes were there already."""
    digest: str
    """SHA-256 of the bytes, hexadecimal."""


def encode_part(
    video_id: str,
    rows: Sequence[FrameLike],
    *,
    n_classes: int = 0,
    schema: pa.Schema = FRAMES_SCHEMA,
    key: str = "",
) -> bytes:
    """Parquet bytes of rows of one video with strictly increasing frame numbers; no rows: a valid empty part.

    `schema`: `FRAMES_SCHEMA`, or that of rows with confidences or regions. `key`: where the part will lie,
    which readers compare (none: anywhere).
    `class_pixels` has `n_classes` entries, more if a label exceeds them (a void label of 255 is counted too).
    """
    if n_classes > MOST_CLASSES:
        raise StoreError(
            f"video {video_id}: masks are of 8 bits, {MOST_CLASSES} classes at most, not {n_classes}"
        )
    indices = [row.frame_index for row in rows]
    if any(later <= earlier for earlier, later in pairwise(indices)):
        raise ValueError(f"video {video_id}: frame numbers of a part must increase, got {indices}")
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    last_HW, mask = None, {}
    for row in rows:
        if row.labels_HW is not last_HW:  # the very map of the frame before, where a result is copied
            last_HW, mask = row.labels_HW, _mask_fields(row.labels_HW, n_classes)
        made = {"video_id": video_id, "pts_reason": NO_TIME_GIVEN if math.isnan(row.pts_s) else None} | mask
        for field in schema:
            columns[field.name].append(made[field.name] if field.name in made else _value(row, field))
    return table_bytes(pa.table(columns, schema=schema), key)


def encode_videos(rows: Sequence[Mapping[str, Any]], key: str = "") -> bytes:
    """Parquet bytes of per-video rows: mappings with the names of `VIDEOS_SCHEMA`, nullable ones if known."""
    needed = {field.name for field in VIDEOS_SCHEMA if not field.nullable}
    for row in rows:
        wrong = sorted((needed - row.keys()) | (row.keys() - set(VIDEOS_SCHEMA.names)))
        if wrong:
            raise ValueError(f"video row {row.get('video_id')}: missing or unknown columns {wrong}")
    return table_bytes(pa.Table.from_pylist([dict(row) for row in rows], schema=VIDEOS_SCHEMA), key)


def table_bytes(table: pa.Table, key: str = "") -> bytes:
    """A table as Parquet, always with the same options."""
    sink = io.BytesIO()
    with part_writer(sink, table.schema, key) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    return seal(sink)


@contextmanager
def part_writer(sink: io.BytesIO, schema: pa.Schema, key: str = "") -> Iterator[pq.ParquetWriter]:
    """A writer with our options: zstd, checksums, statistics where look-ups need them, no Arrow schema.

    Its bytes are those of `seal` afterwards.
    """
    with pq.ParquetWriter(
        sink,
        schema,
        version="2.6",
        compression="zstd",
        compression_level=6,
        use_dictionary=_among(schema, "video_id", "mask_codec"),
        write_statistics=_among(schema, "video_id", "frame_index", "is_key"),
        store_schema=False,
        write_page_checksum=True,
    ) as writer:
        writer.add_key_value_metadata({**schema.metadata, **seal_fields(key)})
        yield writer


def commit_part(store: ObjectStore, key: str, data: bytes) -> CommitResult:
    """Put the bytes under the key unless they are there.

    `DamagedFile` if a damaged file is there, `CommitConflict` if other bytes are.
    """
    digest = hashlib.sha256(data).hexdigest()
    if store.put_if_absent(key, data):
        return CommitResult(True, digest)
    found = store.get(key)
    there = hashlib.sha256(found).hexdigest()
    if there != digest:
        if parse_part_key(key) and (why := why_damaged(found, key)):
            raise damaged(f"output {store.root}: {key}", why)
        raise CommitConflict(
            f"output {store.root}: {key} exists with other content "
            f"(sha256 {there[:12]}, ours {digest[:12]}): "
            "the same frames gave different results, or the video has changed, or another run writes here"
        )
    return CommitResult(False, digest)


def committed_parts(store: ObjectStore, video_id: str | None = None) -> Iterator[PartKey]:
    """Every committed part, of one video or of all, also those that have been merged into a span.

    Each yielded key has `first == last` and `is_span` False; a part that is listed and merged comes once.
    Memory: the shard numbers of one video.
    """
    current, seen = None, set[tuple[int, int]]()
    for info in store.list(frames_prefix(video_id) if video_id else FRAMES_PREFIX):
        key = parse_part_key(info.key)
        if key is None:
            continue
        if key.video_id != current:
            current, seen = key.video_id, set()
        for shard in range(key.first, key.last + 1):
            if (key.segment, shard) not in seen:
                seen.add((key.segment, shard))
                yield PartKey(key.video_id, key.segment, shard, shard)


def list_states(store: ObjectStore, video_id: str | None = None) -> Iterator[StateKey]:
    """Every stored segment state, of one video or of all, in key order (so the newest of a segment last)."""
    prefix = states_prefix(video_id) if video_id else STATE_PREFIX
    for info in store.list(prefix):
        key = parse_state_key(info.key)
        if key is not None:
            yield key


def _among(schema: pa.Schema, *names: str) -> Any:
    return [name for name in schema.names if name in names]


def _mask_fields(labels_HW: np.ndarray, n_classes: int) -> dict[str, Any]:
    values, lengths = label_runs(labels_HW)
    return {
        "height": labels_HW.shape[0],
        "width": labels_HW.shape[1],
        "mask": encode_runs(values, lengths),
        "mask_codec": MASK_CODEC,
        "class_pixels": np.bincount(values, weights=lengths, minlength=n_classes).astype(np.int64),
    }


def _value(row: FrameLike, field: pa.Field) -> Any:
    """What a frame says in a column."""
    value = getattr(row, field.name, None) if field.nullable else getattr(row, field.name)
    value = value.item() if isinstance(value, np.generic) else value
    return None if field.nullable and isinstance(value, float) and math.isnan(value) else value
