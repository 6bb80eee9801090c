"""What a run lacks, and which of its files are damaged: asked before a marker is believed.

Model: a row of `videos/` says how many parts a video has, and how many frames. A listing of `frames/` must
show as many parts, their numbers without a gap. Where rows are to be counted, and where an older version
wrote no number of parts, the footers' counts of rows must come to the frames. Only `damaged_files` reads all
bytes. A quarantined video has at least the parts that it had when it was given up; its frames are not
counted.

Rows are read before the listing, so a run that goes on meanwhile lacks nothing. Memory: four columns of
`videos/`, and one video's listing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidseg_core.store.checked import HOW_TO_REPAIR, is_sealed, why_damaged
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import (
    FRAMES_PREFIX,
    VIDEOS_PREFIX,
    PartKey,
    frames_prefix,
    parse_part_key,
    part_key,
)
from vidseg_core.store.run import Run
from vidseg_core.store.schema import VIDEOS_SCHEMA

_COLUMNS = ("video_id", "status", "decoded_frames", "parts")
_READERS = 16
_WHOLE_READERS = 8
"""Whole files that are read at a time, each as large as a span may be."""
_BATCH = 1000
_MOST_GAPS = 1000
"""Gaps of a video that are named, at most."""
_SHOWN = 5
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was committed and is not there as it was."""

    key: str
    """The file, or the folder of a video."""
    why: str
    """What is wrong with it, as the rest of a sentence."""
    video_id: str

    def __str__(self) -> str:
        return f"{self.key} {self.why}"


class Claims:
    """What rows of videos say of the frames that there must be."""

    def __init__(self, batches: Iterable[pa.Table] = ()) -> None:
        self._kept: list[pa.Table] = [VIDEOS_SCHEMA.empty_table().select(_COLUMNS)]
        for _ in self.of(batches):
            pass

    def of(self, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The batches as they come (`VIDEOS_SCHEMA`); what they claim is kept."""
        for rows in batches:
            self._kept.append(rows.select(_COLUMNS))
            yield rows

    def in_order(self) -> Iterator[dict[str, Any]]:
        """The claims in the order of a listing of `frames/`."""
        table = pa.concat_tables(self._kept)
        folders = pc.binary_join_element_wise(table["video_id"], "/", "")  # type: ignore[attr-defined]
        for batch in table.take(pc.sort_indices(folders)).to_batches(_BATCH):  # type: ignore[attr-defined]
            yield from batch.to_pylist()


def missing(
    run: Run, claims: Claims, video_ids: Collection[str] | None = None, *, count_rows: bool = False
) -> Iterator[Fault]:
    """What of the claimed frames is not there, by video (or of some videos)."""
    wanted = (claim for claim in claims.in_order() if video_ids is None or claim["video_id"] in video_ids)
    claim = next(wanted, None)
    with ThreadPoolExecutor(_READERS) as pool:
        for video_id, keys in run.files():
            while claim and f"{claim['video_id']}/" < f"{video_id}/":
                yield from _without_frames(claim)
                claim = next(wanted, None)
            if claim and claim["video_id"] == video_id:
                yield from _of_video(run, claim, keys, count_rows, pool)
                claim = next(wanted, None)
    while claim:
        yield from _without_frames(claim)
        claim = next(wanted, None)


def damaged_files(run: Run, found: Verified) -> Iterator[Fault]:
    """Every part, span and row of a video that is not what was written; all of them are read."""

    def look(key: str) -> tuple[str | None, bool]:
        try:
            data = run.store.get(key)
        except FileNotFoundError:  # a compaction
            return None, True
        return why_damaged(data, key), is_sealed(data)

    keys = (info.key for prefix in (VIDEOS_PREFIX, FRAMES_PREFIX) for info in run.store.list(prefix))
    ours = (key for key in keys if parse_part_key(key) or _row_of(key))
    with ThreadPoolExecutor(_WHOLE_READERS) as pool:
        while batch := list(islice(ours, _BATCH)):
            for key, (why, sealed) in zip(batch, pool.map(look, batch), strict=True):
                found.files += 1
                found.without_checksums += not sealed
                if why is not None:
                    part = parse_part_key(key)
                    yield Fault(key, f"is damaged ({why})", part.video_id if part else _row_of(key))


@dataclass(slots=True)
class Verified:
    """What has been read."""

    files: int = 0
    without_checksums: int = 0
    """Files of an older version among them: their masks were decoded."""


def raise_for(where: str, faults: Sequence[Fault]) -> None:
    """`DamagedFile` that names the first of the faults, if there is any."""
    if faults:
        shown = ", ".join(map(str, faults[:_SHOWN]))
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise DamagedFile(f"{where}: {shown}{more}; {HOW_TO_REPAIR}")


def _row_of(key: str) -> str:
    """The video whose row lies under a key; empty for other keys."""
    name = key.removeprefix(VIDEOS_PREFIX)
    return name.removesuffix(".parquet") if name != key and name.endswith(".parquet") else ""


def _without_frames(claim: Mapping[str, Any]) -> Iterator[Fault]:
    parts, frames = claim["parts"], claim["decoded_frames"]
    if parts or (parts is None and frames and claim["status"] != "quarantined"):
        yield Fault(frames_prefix(claim["video_id"]), "is missing", claim["video_id"])


def _of_video(
    run: Run, claim: Mapping[str, Any], keys: Sequence[PartKey], count_rows: bool, pool: ThreadPoolExecutor
) -> Iterator[Fault]:
    video_id, parts = claim["video_id"], claim["parts"]
    folder, given_up = frames_prefix(video_id), claim["status"] == "quarantined"
    there = sum(key.last - key.first + 1 for key in keys)
    gaps = [Fault(key, "is missing", video_id) for key in islice(_gaps(video_id, keys, given_up), _MOST_GAPS)]
    yield from gaps
    if parts is not None and there + len(gaps) < parts:
        yield Fault(folder, f"has {there} of {parts} parts", video_id)
    elif parts is not None and not gaps and not given_up and there > parts:
        yield Fault(folder, f"has {there} parts where {parts} were written", video_id)
    elif (count_rows or parts is None) and not gaps and not given_up:
        rows = _rows_in(run, video_id, keys, pool)
        if rows != claim["decoded_frames"]:
            yield Fault(folder, f"has {rows} of {claim['decoded_frames']} frames", video_id)


def _gaps(video_id: str, keys: Sequence[PartKey], given_up: bool) -> Iterator[str]:
    """Parts that are missing before others of their segment, and first parts of segments that have none."""
    due = dict[int, int]()
    for key in keys:
        for shard in range(due.get(key.segment, 0), key.first):
            yield part_key(video_id, key.segment, shard)
        due[key.segment] = key.last + 1
    for segment in range(0 if given_up else max(due)):  # one may have ended before its first part
        if segment not in due:
            yield part_key(video_id, segment, 0)


def _rows_in(run: Run, video_id: str, keys: Sequence[PartKey], pool: ThreadPoolExecutor) -> int:
    """Rows going by the footers; looked at again if a compaction took a file away."""
    for attempt in range(_TRIES):
        try:
            return sum(pool.map(run.rows_in, keys))
        except FileNotFoundError:
            if attempt == _TRIES - 1:
                raise
            keys = [key for _, found in run.files(video_id) for key in found]
    return 0
