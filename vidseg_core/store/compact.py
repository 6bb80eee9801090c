"""Many small parts of a video into a few spans, while readers read.

Protocol, per run of consecutive parts of one segment:

1. read the parts, write their rows as one object `span-<segment>-<first>-<last>.parquet` beside them, with
   put-if-absent: the span is there whole or not at all. This is the switch: from now on readers that know the
   naming rule (`open_run`, `committed_parts`) take the span and skip the parts whose numbers it covers;
2. delete the covered parts.

A crash before 1 leaves nothing, a crash in 2 leaves covered parts, and the next `compact` deletes them: it
begins by listing, like everything else. Running it twice, or two at once with the same `span_bytes`, writes
the same spans with the same bytes. No moment loses a row: deletion follows the span, and span names sort
after part names, so that a paged listing which misses a deleted part comes to its span.

Caveat: a reader that globs `frames/**/*.parquet` without the rule sees the covered parts and the span, so
rows twice, between 1 and the end of 2 (milliseconds a video on a disk; until the next `compact` after a
crash), and may find that a file it listed is gone. Query such globs before or after, not meanwhile.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from vidseg_core.store.checked import read_checked, seal
from vidseg_core.store.errors import StoreError
from vidseg_core.store.keys import FRAMES_PREFIX, SUCCESS_KEY, PartKey, frames_prefix, parse_part_key, visible
from vidseg_core.store.local_store import LocalStore
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.parts import commit_part, part_writer
from vidseg_core.store.run import open_run
from vidseg_core.store.schema import conformed, frames_schema

SPAN_BYTES = 64 << 20
"""Parts are merged until their files add up to this many bytes."""
SPAN_GROUP_ROWS = 128
_TRIES = 5


@dataclass(frozen=True, slots=True)
class CompactResult:
    """What a `compact` did."""

    spans: int
    """Spans written."""
    parts_removed: int
    """Parts deleted because a span holds their rows."""

    def __add__(self, other: CompactResult) -> CompactResult:
        return CompactResult(self.spans + other.spans, self.parts_removed + other.parts_removed)


def compact(
    path: str | os.PathLike[str], *, span_bytes: int = SPAN_BYTES, force: bool = False
) -> CompactResult:
    """Merge the parts of every video of a run. `StoreError` if the run is not complete, unless forced.

    `span_bytes`: size of a span at most, in bytes of its parts' files. Memory: about twice that.
    """
    run = open_run(path)
    if not run.complete and not force:
        raise StoreError(
            f"run {path} is not complete ({SUCCESS_KEY} is missing): a job may still write to it. "
            "Finish it first, or force"
        )
    if isinstance(run.store, LocalStore):
        run.store.sweep()
    total = CompactResult(0, 0)
    for video_id in _video_ids(run.store):
        total += compact_video(run.store, video_id, span_bytes=span_bytes)
    return total


def compact_video(store: ObjectStore, video_id: str, *, span_bytes: int = SPAN_BYTES) -> CompactResult:
    """Merge the parts of one video; videos are independent, so this may run in parallel over them."""
    spans = _write_spans(store, video_id, span_bytes)
    keys = _keys(store, video_id)
    kept = set(visible(keys))
    covered = [key for key in keys if key not in kept]
    _check_spans([key for key in kept if key.is_span] if covered else [], store)
    for key in covered:
        store.delete(str(key))
    return CompactResult(spans, len(covered))


def _check_spans(spans: Sequence[PartKey], store: ObjectStore) -> None:
    """`DamagedFile` unless the spans are what was written: the parts that they cover are deleted next."""
    for key in map(str, spans):
        read_checked(store.get(key), key, f"output {store.root}")


def _write_spans(store: ObjectStore, video_id: str, span_bytes: int) -> int:
    """Step 1 for one video; returns the spans written. Looks again if another compaction took a part away."""
    spans = 0
    for attempt in range(_TRIES):
        try:
            for group in _groups(store, video_id, span_bytes):
                span = PartKey(video_id, group[0].segment, group[0].first, group[-1].last, True)
                data = _merged(store, group, str(span))
                spans += commit_part(store, str(span), data).created
            break
        except FileNotFoundError as error:
            if attempt == _TRIES - 1:
                raise StoreError(
                    f"output {store.root}: parts of {video_id} keep vanishing ({error})"
                ) from error
    return spans


def _groups(store: ObjectStore, video_id: str, span_bytes: int) -> Iterator[list[PartKey]]:
    """Runs of two or more parts with consecutive numbers, cut greedily at `span_bytes` from the left."""
    sizes = _keys(store, video_id)
    group: list[PartKey] = []
    filled = 0
    for key in visible(sizes):
        joins = group and key.segment == group[-1].segment and key.first == group[-1].last + 1
        if key.is_span or not joins or filled + sizes[key] > span_bytes:
            if len(group) > 1:
                yield group
            group, filled = [], 0
        if not key.is_span:
            group.append(key)
            filled += sizes[key]
    if len(group) > 1:
        yield group


def _merged(store: ObjectStore, group: Sequence[PartKey], key: str) -> bytes:
    """The rows of the parts as the bytes of one file with this key, in row groups of `SPAN_GROUP_ROWS`."""
    sink = io.BytesIO()
    schema = _part_table(store, str(group[0])).schema
    pending, last = schema.empty_table(), -1
    with part_writer(sink, schema, key) as writer:
        for part in group:
            table = _part_table(store, str(part))
            if table.num_rows == 0:
                continue
            first = table["frame_index"][0].as_py()
            if first <= last:
                raise StoreError(f"output {store.root}: {part} begins with frame {first}, after frame {last}")
            last = table["frame_index"][-1].as_py()
            pending = pa.concat_tables([pending, table])
            whole = pending.num_rows // SPAN_GROUP_ROWS * SPAN_GROUP_ROWS
            if whole:
                writer.write_table(pending.slice(0, whole), row_group_size=SPAN_GROUP_ROWS)
                pending = pending.slice(whole)
        if pending.num_rows:
            writer.write_table(pending, row_group_size=SPAN_GROUP_ROWS)
    return seal(sink)


def _part_table(store: ObjectStore, key: str) -> pa.Table:
    """The rows of a part, each checked: what is read here is written anew and the part is deleted."""
    table = read_checked(store.get(key), key, f"output {store.root}")
    return conformed(table, frames_schema(table.column_names), f"output {store.root}: {key}")


def _keys(store: ObjectStore, video_id: str) -> dict[PartKey, int]:
    """A video's parts and spans with the sizes of their files."""
    listing = store.list(frames_prefix(video_id))
    return {key: info.size for info in listing if (key := parse_part_key(info.key))}


def _video_ids(store: ObjectStore) -> Iterator[str]:
    last = None
    for info in store.list(FRAMES_PREFIX):
        key = parse_part_key(info.key)
        if key and key.video_id != last:
            last = key.video_id
            yield last
