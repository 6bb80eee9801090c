"""The videos of a run, in columns: a million of them in some hundred bytes each.

Model: an Arrow table with the columns of `SCHEMA`; a `VideoInput` is made when one is asked for.
Invariant: behaves as the sequence of its `VideoInput`s; slices and selections share or copy columns, never
make objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidseg_core.config.excerpt import EXCERPT, Excerpt

_CHUNK = 16_384
"""Videos that are objects at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInput:
    """One video to process."""

    video_id: str
    uri: str
    """Real path of a local file, an address in S3 or of another service, or of a sequence of pictures."""
    size: int
    """Bytes; 0 if it could not be found out."""
    stamp: str
    """Time of change (local: nanoseconds), ETag, or a digest of those of a sequence's frames: with `size` the
    identity of the contents."""
    fps: float | None = None
    """These three are the frames that are processed (`Excerpt`)."""
    start_s: float | None = None
    end_s: float | None = None

    @property
    def excerpt(self) -> Excerpt:
        """Which of its frames are processed."""
        return Excerpt(fps=self.fps, start_s=self.start_s, end_s=self.end_s)


SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("stamp", pa.string()),
        *(pa.field(name, pa.float64()) for name in EXCERPT),
    ]
)
NEEDED = SCHEMA.names[:4]
"""Columns that have a value in every row, and are in every list, however old."""


class VideoList(Sequence[VideoInput]):
    """Videos as the rows of `table` (`SCHEMA`)."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @classmethod
    def of(cls, videos: Iterable[VideoInput]) -> VideoList:
        """A list of these videos."""
        return cls(columns_of((astuple(video) for video in videos), SCHEMA))

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, place: int) -> VideoInput: ...
    @overload
    def __getitem__(self, place: slice) -> VideoList: ...
    def __getitem__(self, place: int | slice) -> VideoInput | VideoList:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step == 1:
                return VideoList(self.table.slice(start, max(0, stop - start)))
            return VideoList(self.table.take(pa.array(range(start, stop, step), pa.int64())))
        row = range(len(self))[place]
        return VideoInput(**self.table.slice(row, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[VideoInput]:
        for batch in self.table.to_batches(max_chunksize=_CHUNK):
            for row in batch.to_pylist():
                yield VideoInput(**row)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, VideoList):
            return bool(self.table.equals(other.table))
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"VideoList({len(self)} videos)"

    def without(self, video_ids: pa.ChunkedArray) -> VideoList:
        """The videos whose id is not among these."""
        known = pc.is_in(self.table["video_id"], value_set=video_ids)  # type: ignore[attr-defined]
        return VideoList(self.table.filter(pc.invert(known)))  # type: ignore[attr-defined]


def columns_of(rows: Iterable[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    """Rows as a table, a chunk of them at a time."""
    chunks, source = [], iter(rows)
    while chunk := list(islice(source, _CHUNK)):
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(zip(*chunk, strict=True), schema, strict=True)
        ]
        chunks.append(pa.record_batch(arrays, schema=schema))
    return pa.Table.from_batches(chunks, schema)


def text_column(texts: Iterable[str]) -> pa.ChunkedArray:
    """Texts as one column."""
    return columns_of(((text,) for text in texts), pa.schema([("text", pa.string())]))["text"]


def alike(texts: pa.ChunkedArray) -> Iterator[list[int]]:
    """Places of equal texts, in order, for every text that is there more than once; groups by first place.

    Hashes are compared first: 24 bytes a text, where a dict of them takes ten times as much.
    """
    hashes = np.fromiter(_hashes(texts), np.int64, len(texts))
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    doubtful = np.unique(np.concatenate([order[1:][same], order[:-1][same]]))
    groups: dict[str, list[int]] = {}
    for place in doubtful.tolist():
        groups.setdefault(texts[place].as_py(), []).append(place)
    return (group for group in groups.values() if len(group) > 1)


def _hashes(texts: pa.ChunkedArray) -> Iterator[int]:
    for chunk in texts.chunks:
        for start in range(0, len(chunk), _CHUNK):
            yield from map(hash, chunk.slice(start, _CHUNK).to_pylist())
