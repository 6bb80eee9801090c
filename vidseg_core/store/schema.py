"""The tables of a run, as data: column names, order and types, frozen by golden tests.

A change of either schema that an old reader would misread raises `SCHEMA_VERSION`, which every file carries
in its metadata under `vidseg.schema_version` and every reader checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from vidseg_core.store.errors import StoreError

SCHEMA_VERSION = 1
VERSION_KEY = b"vidseg.schema_version"
_METADATA = {VERSION_KEY: str(SCHEMA_VERSION).encode()}


def _column(name: str, kind: pa.DataType, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


FRAMES_SCHEMA: pa.Schema = pa.schema(
    [
        _column("video_id", pa.string()),
        _column("frame_index", pa.int64()),  # output order of a plain decode of the video, from 0
        _column("pts_s", pa.float64(), nullable=True),  # presentation time, seconds; null: see pts_reason
        _column("is_key", pa.bool_()),
        _column("key_frame_index", pa.int64()),  # the key frame whose result was used (itself for a key)
        _column("decision_score", pa.float64(), nullable=True),  # null: no decision was asked for
        _column("kar", pa.float64()),  # key/all ratio of the last 90 decisions
        _column("lkd", pa.int32()),  # frames since the last key frame
        _column("is_corrupt", pa.bool_()),
        _column("height", pa.int32()),  # of the mask
        _column("width", pa.int32()),
        _column("mask", pa.binary()),
        _column("mask_codec", pa.string()),
        _column("class_pixels", pa.list_(_column("element", pa.int64()))),  # index = class id
        _column("pts_reason", pa.string(), nullable=True),  # why there is no pts_s; null: there is one
    ],
    metadata=_METADATA,
)
"""One row per frame: `frames/video=<id>/*.parquet`."""

PSEUDO_SCHEMA: pa.Schema = pa.schema(
    [
        *FRAMES_SCHEMA,
        _column("confidence", pa.float64()),  # mean probability of the pixels' classes, 0..1
        _column("confident_share", pa.float64()),  # share of pixels with a label; the others are 255
    ],
    metadata=_METADATA,
)
"""Columns of the frames of a run of pseudo-labels."""

REGION_SCHEMA: pa.Schema = pa.schema(
    [
        *FRAMES_SCHEMA,
        _column("region_keys", pa.list_(_column("element", pa.bool_())), nullable=True),  # row by row
        _column("region_key_frame_index", pa.list_(_column("element", pa.int64())), nullable=True),
        _column("region_scores", pa.list_(_column("element", pa.float64())), nullable=True),
        _column("key_share", pa.float64(), nullable=True),  # of the frame's pixels that N saw
    ],
    metadata=_METADATA,
)
"""Columns of the frames of a run with `--regions.grid`; `region_*` have an entry per region."""

VIDEOS_SCHEMA: pa.Schema = pa.schema(
    [
        _column("video_id", pa.string()),
        _column("uri", pa.string()),
        _column("status", pa.string()),  # ok | partial | quarantined
        _column("reason", pa.string(), nullable=True),  # null for ok
        _column("codec", pa.string(), nullable=True),  # null, as the next three: not opened
        _column("width", pa.int32(), nullable=True),  # of the source, after rotation
        _column("height", pa.int32(), nullable=True),
        _column("declared_frames", pa.int64(), nullable=True),
        _column("decoded_frames", pa.int64()),
        _column("corrupt_frames", pa.int64()),
        _column("keys", pa.int64()),
        _column("aki", pa.float64(), nullable=True),  # frames per key; null without keys
        _column("duration_s", pa.float64(), nullable=True),
        _column("cpu_s", pa.float64()),
        _column("gpu_s", pa.float64()),
        _column("parts", pa.int64(), nullable=True),  # committed parts; null: written by an older version
        _column(
            "stream", pa.int32(), nullable=True
        ),  # number of the video stream in the file; null: not opened
        _column("other_streams", pa.string(), nullable=True),  # what else the file holds; null: nothing
        _column("fps", pa.float64(), nullable=True),  # frames per second that were taken; null: all
        _column("start_s", pa.float64(), nullable=True),  # the range they are from; null: beginning, end
        _column("end_s", pa.float64(), nullable=True),
        _column("note", pa.string(), nullable=True),  # what is special about its pictures; null: nothing
        _column("filled_by", pa.string(), nullable=True),  # frames by what filled them, where that is chosen
    ],
    metadata=_METADATA,
)
"""One row per video: `videos/*.parquet`."""


def frames_schema(names: Iterable[str]) -> pa.Schema:
    """The schema of a frame table with these column names."""
    known = set(names)
    return frames_table(confidence="confidence" in known, regions="region_keys" in known)


def frames_table(*, confidence: bool = False, regions: bool = False) -> pa.Schema:
    """The schema of the frames of a run: of pseudo-labels, with regions, or neither."""
    if confidence and regions:
        raise ValueError("pseudo-labels have no regions")
    return PSEUDO_SCHEMA if confidence else REGION_SCHEMA if regions else FRAMES_SCHEMA


def conformed(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """The table in exactly this schema: columns that came with a later version are null in older files."""
    lacking = [field for field in schema if field.name not in table.column_names]
    for field in lacking:
        if not field.nullable:
            raise StoreError(f"{where}: there is no column {field.name!r}")
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


def check_version(metadata: Mapping[bytes, bytes] | None, where: str) -> None:
    """Raise `StoreError` unless a file's key-value metadata carries our schema version."""
    found = (metadata or {}).get(VERSION_KEY)
    if found is None:
        raise StoreError(f"{where}: not written by vidseg (no schema version in the file metadata)")
    if found != _METADATA[VERSION_KEY]:
        raise StoreError(
            f"{where}: schema version {found.decode(errors='replace')}, this vidseg reads {SCHEMA_VERSION}"
        )
