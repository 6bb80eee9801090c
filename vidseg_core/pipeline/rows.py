"""What travels between the stages: one Arrow row per unit, shard, part or receipt.

Every message is one row with a small JSON ``header`` and one big binary column that Ray's object store hands
over without a copy. Small things go into the header, pixels never do. A header is read back as the typed
message it was made from, so no stage looks into a dict.

Legend: T frames, H x W working size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa

from vidseg_core.media import DecodeUnit, FrameShard, Layout, Pictures

_BLOB = "blob"
_HEADER = "header"
_M = TypeVar("_M")
_TYPES = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}
_TYPES |= {list[kind]: pa.list_(values) for kind, values in _TYPES.items()}


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
    """Size at which the video is shown."""
    source_width: int
    mirrored: bool
    frames: int
    """Frames that are delivered."""
    times: int
    """Frames of the unit, delivered or not."""
    shard_bytes: int
    """What the pictures of a shard usually take."""
    unit: dict[str, Any]
    """The `DecodeUnit`, without its arrays."""


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
    mirrored: bool = False
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
    """Final frames of one part: their label maps in the blob, the rest in columns of their own.

    ``part < 0``: the call made no part final (a heartbeat).
    """

    video_id: str
    segment: int
    part: int
    height: int = 0
    width: int = 0
    source_height: int = 0
    source_width: int = 0
    mirrored: bool = False
    closes_segment: bool = False
    fatal: str | None = None
    drained: bool = False
    totals: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Receipt:
    """What the commit stage reports to the driver about one part.

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


def to_table(
    message: Any, blob: np.ndarray | bytes | None = None, columns: Mapping[str, pa.Array] | None = None
) -> pa.Table:
    """One-row table of ``message``.

    ``blob`` (a contiguous uint8 array or bytes) is referenced, not copied. ``columns``: see `frame_columns`.
    """
    data = b"" if blob is None else blob
    size = data.nbytes if isinstance(data, np.ndarray) else len(data)
    offsets = pa.py_buffer(np.array([0, size], dtype=np.int64))
    buffers = [None, offsets, pa.py_buffer(data)]
    column = pa.Array.from_buffers(pa.large_binary(), 1, buffers)
    return pa.table({_HEADER: pa.array([json.dumps(asdict(message))]), _BLOB: column} | dict(columns or {}))


def frame_columns(kind: type, frames: Sequence[Any]) -> dict[str, pa.Array]:
    """What frames of a dataclass say in plain values, as columns that travel with one message."""
    return {
        name: pa.array([[getattr(frame, name) for frame in frames]], pa.list_(values))
        for name, values in _plain_fields(kind).items()
    }


def frames_of(table: pa.Table, row: int, labels_THW: np.ndarray) -> list[SimpleNamespace]:
    """The frames of one message again, each with its label map."""
    names = [name for name in table.column_names if name not in (_HEADER, _BLOB)]
    values = zip(*(table.column(name)[row].as_py() for name in names), strict=True)
    return [
        SimpleNamespace(**dict(zip(names, frame, strict=True)), labels_HW=labels_HW)
        for frame, labels_HW in zip(values, labels_THW, strict=True)
    ]


@lru_cache(maxsize=8)
def _plain_fields(kind: type) -> dict[str, pa.DataType]:
    """The fields of a dataclass that are numbers, flags, texts, lists of them, or None; and their types."""
    hints = get_type_hints(kind)
    kinds = {name: {hint, *_choices(hint)} & _TYPES.keys() for name, hint in hints.items()}
    return {field.name: _TYPES[kinds[field.name].pop()] for field in fields(kind) if kinds[field.name]}


def _choices(hint: Any) -> tuple[Any, ...]:
    """The kinds of which a value may be."""
    return () if get_origin(hint) is list else get_args(hint)


def messages(table: pa.Table, kind: type[_M]) -> list[tuple[_M, pa.Buffer]]:
    """The typed messages of a table and their blobs (zero-copy buffers), in row order."""
    headers = table.column(_HEADER).to_pylist()
    blobs = [blob for chunk in table.column(_BLOB).chunks for blob in _slices(chunk)]
    return [(_typed(kind, json.loads(text)), blob) for text, blob in zip(headers, blobs, strict=True)]


def owned(table: pa.Table) -> pa.Table:
    """A one-row table with a copy of its blob, where that lies in memory that is used again."""
    (batch,) = table.to_batches()
    return pa.Table.from_batches([pa.ipc.read_record_batch(batch.serialize(), batch.schema)])


def _typed(kind: type[_M], values: dict[str, Any]) -> _M:
    for name, inner in _nested(kind).items():
        values[name] = [_typed(inner, value) for value in values[name]]
    return kind(**values)


@lru_cache(maxsize=32)
def _nested(kind: type) -> dict[str, type]:
    """The fields of a message that are lists of messages."""
    inner = {
        name: get_args(hint)[:1] for name, hint in get_type_hints(kind).items() if get_origin(hint) is list
    }
    return {
        name: found for name, (found,) in inner.items() if isinstance(found, type) and is_dataclass(found)
    }


def _slices(column: pa.Array) -> Iterator[pa.Buffer]:
    """The values of a large_binary array as views on its data (taking scalars would copy them)."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    for start, end in pairwise(ends.tolist()):
        yield data.slice(start, end - start)


def pictures_of(shard: ShardMessage, blob: pa.Buffer) -> Pictures:
    """The shard's pictures, lying in the blob."""
    layouts = [Layout.from_list(values) for values in shard.layouts]
    pixels = np.frombuffer(blob, dtype=np.uint8)
    return Pictures(pixels, layouts, shard.layout_of, height=shard.height, width=shard.width)


def unit_numbers(unit: DecodeUnit) -> np.ndarray:
    """The arrays of a unit as int64 numbers, one after the other."""
    kept = () if unit.kept is None else unit.kept
    return np.concatenate([unit.frame_pts, np.asarray(kept, dtype=np.int64)])


def read_unit(message: UnitMessage, numbers: np.ndarray) -> tuple[DecodeUnit, np.ndarray]:
    """The unit of a message, and what of `numbers` comes after its own."""
    some = message.frames < message.times
    stop = message.times + (message.frames if some else 0)
    kept = numbers[message.times : stop] if some else None
    unit = DecodeUnit(**message.unit, frame_pts=numbers[: message.times], kept=kept)
    return unit, numbers[stop:]


def unit_table(message: UnitMessage, unit: DecodeUnit) -> pa.Table:
    """A planned unit; its arrays travel as int64 bytes."""
    return to_table(message, unit_numbers(unit))


def shard_table(message: ShardMessage, shard: FrameShard | None) -> pa.Table:
    """A decoded shard; ``None`` for one that came out empty."""
    return to_table(message, None if shard is None else shard.pictures.pixels)
