"""What travels between the stages: one Arrow row per unit, shard, part or receipt.

Every message is one row with a small JSON ``header`` and one big binary column that Ray's object store hands
over without a copy. Small things go into the header, pixels never do. A header is read back as the typed
message it was made from, so no stage looks into a dict.

Legend: T frames, H x W working size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from vidseg_core.media import DecodeUnit, FrameShard, Layout, Pictures

_BLOB = "blob"
_HEADER = "header"
_M = TypeVar("_M")


@dataclass(slots=True)
class UnitMessage:
    """One decode call: a unit of one segment, and where its shards lie in the segment."""

    video_id: str
    segment: int
    first_shard: int
    shards: int
    skip_shards: int
    take_shards: int
    shard_frames: int
    ends_segment: bool
    source_height: int
    source_width: int
    unit: dict[str, Any]


@dataclass(slots=True)
class ShardMessage:
    """A block of consecutive decoded frames of one segment.

    ``fatal`` is a reason code that ends the video; ``drained``: not decoded, since the run is to end.
    """

    video_id: str
    segment: int
    shard: int
    ends_segment: bool
    height: int
    width: int
    source_height: int = 0
    source_width: int = 0
    frame_index: list[int] = field(default_factory=list)
    pts_s: list[float] = field(default_factory=list)
    is_corrupt: list[bool] = field(default_factory=list)
    layouts: list[list[Any]] = field(default_factory=list)
    layout_of: list[int] = field(default_factory=list)
    decode_s: float = 0.0
    error: str | None = None
    fatal: str | None = None
    drained: bool = False


@dataclass(slots=True)
class PartMessage:
    """Final frames of one part, still as label maps.

    ``part < 0``: the call made no part final (a heartbeat).
    """

    video_id: str
    segment: int
    part: int
    height: int = 0
    width: int = 0
    frame_index: list[int] = field(default_factory=list)
    pts_s: list[float] = field(default_factory=list)
    is_key: list[bool] = field(default_factory=list)
    key_frame_index: list[int] = field(default_factory=list)
    decision_score: list[float] = field(default_factory=list)
    kar: list[float] = field(default_factory=list)
    lkd: list[int] = field(default_factory=list)
    is_corrupt: list[bool] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    confident_share: list[float] = field(default_factory=list)
    source_height: int = 0
    source_width: int = 0
    closes_segment: bool = False
    fatal: str | None = None
    drained: bool = False
    totals: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Receipt:
    """What the commit stage tells the driver about one part.

    ``part < 0``: a heartbeat, nothing was committed.
    """

    video_id: str
    segment: int
    part: int
    frames: int = 0
    keys: int = 0
    created: bool = False
    bytes: int = 0
    commit_s: float = 0.0
    labelled: float = 0.0
    """Sum over frames of the share of pixels with a label; pseudo-labels only."""
    closed: bool = False
    fatal: str | None = None
    drained: bool = False
    totals: dict[str, Any] = field(default_factory=dict)


def to_table(message: Any, blob: np.ndarray | bytes | None = None) -> pa.Table:
    """One-row table of ``message``.

    ``blob`` (a contiguous uint8 array or bytes) is referenced, not copied.
    """
    data = b"" if blob is None else blob
    size = data.nbytes if isinstance(data, np.ndarray) else len(data)
    offsets = pa.py_buffer(np.array([0, size], dtype=np.int64))
    buffers = [None, offsets, pa.py_buffer(data)]
    column = pa.Array.from_buffers(pa.large_binary(), 1, buffers)
    return pa.table({_HEADER: pa.array([json.dumps(asdict(message))]), _BLOB: column})


def messages(table: pa.Table, kind: type[_M]) -> list[tuple[_M, pa.Buffer]]:
    """The typed messages of a table and their blobs (zero-copy buffers), in row order."""
    headers = table.column(_HEADER).to_pylist()
    blobs = [blob for chunk in table.column(_BLOB).chunks for blob in _slices(chunk)]
    return [(kind(**json.loads(text)), blob) for text, blob in zip(headers, blobs, strict=True)]


def _slices(column: pa.Array) -> Iterator[pa.Buffer]:
    """The values of a large_binary array as views on its data (taking scalars would copy them)."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    for start, end in pairwise(ends.tolist()):
        yield data.slice(start, end - start)


def labels_of(part: PartMessage, blob: pa.Buffer) -> np.ndarray:
    """labels_THW uint8, a read-only view on the blob."""
    return np.frombuffer(blob, dtype=np.uint8).reshape(len(part.frame_index), part.height, part.width)


def pictures_of(shard: ShardMessage, blob: pa.Buffer) -> Pictures:
    """The shard's pictures, lying in the blob."""
    layouts = [Layout.from_list(values) for values in shard.layouts]
    pixels = np.frombuffer(blob, dtype=np.uint8)
    return Pictures(pixels, layouts, shard.layout_of, height=shard.height, width=shard.width)


def unit_table(message: UnitMessage, unit: DecodeUnit) -> pa.Table:
    """A planned unit; the presentation times travel as int64 bytes."""
    return to_table(message, np.ascontiguousarray(unit.frame_pts, dtype=np.int64))


def shard_table(message: ShardMessage, shard: FrameShard | None) -> pa.Table:
    """A decoded shard; ``None`` for one that came out empty."""
    return to_table(message, None if shard is None else shard.pictures.pixels)
