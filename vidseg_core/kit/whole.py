"""Whether a run is whole (what it lacks of what was committed, what of it is damaged), and what it comes to.

Model: a run is whole if every input has its row in `videos/`, every row its parts (`store.soundness`), and
`_SUCCESS` stands over nothing less. For the totals rows of `videos/` come in batches and are forgotten; sums
stay, and the rows that a person must see.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidseg_core.kit.manifest import read_inputs
from vidseg_core.plan.video_list import VideoList, text_column
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import RUN_KEY, VIDEOS_PREFIX, video_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.run import Run
from vidseg_core.store.schema import VIDEOS_SCHEMA
from vidseg_core.store.soundness import Claims, Fault, Verified, damaged_files, missing, raise_for

STATUSES = ("ok", "partial", "quarantined")
_SUMMED = ("decoded_frames", "corrupt_frames", "keys", "duration_s", "cpu_s", "gpu_s")


def closed_videos(store: ObjectStore) -> pa.ChunkedArray:
    """Ids of the videos that have their row already, as a column."""
    names = (info.key.removeprefix(VIDEOS_PREFIX) for info in store.list(VIDEOS_PREFIX))
    return text_column(name.removesuffix(".parquet") for name in names)


def lacking(
    store: ObjectStore,
    claims: Claims | None = None,
    *,
    video_ids: Collection[str] | None = None,
    count_rows: bool = False,
) -> list[Fault]:
    """What a run (or some of its videos) lacks of what was committed; an unfinished one may lack rows.

    `claims`: those of the rows, where they have been read already.
    """
    run = Run(store)
    complete = run.complete  # before anything else: a driver may go on meanwhile
    claims = claims or Claims(run.video_batches())
    faults = list(missing(run, claims, video_ids, count_rows=count_rows))
    if not complete:
        return faults
    rows = [fault for fault in _without_row(store) if video_ids is None or fault.video_id in video_ids]
    return faults + rows + list(_run_json(store))


def whole_totals(store: ObjectStore, inputs: VideoList, *, finished: bool) -> Totals:
    """The totals of a run in which nothing is missing; `DamagedFile` names what is.

    `finished`: it must have its ``run.json``, too.
    """
    run, claims = Run(store), Claims()
    totals = totals_of(claims.of(run.video_batches()))
    left = inputs.without(closed_videos(store)).table["video_id"].to_pylist()
    faults = [_no_row(video_id) for video_id in left]
    faults += [*missing(run, claims), *(_run_json(store) if finished else ())]
    raise_for(f"output {store.root}", faults)
    return totals


def _without_row(store: ObjectStore) -> Iterator[Fault]:
    try:
        ids = read_inputs(store)["video_id"]
    except FileNotFoundError:
        return
    closed = set(closed_videos(store).to_pylist())
    yield from (_no_row(video_id) for video_id in ids.to_pylist() if video_id not in closed)


def _no_row(video_id: str) -> Fault:
    return Fault(video_key(video_id), "is missing", video_id)


def _run_json(store: ObjectStore) -> Iterator[Fault]:
    try:
        if not Run(store).info():
            yield Fault(RUN_KEY, "is missing", "")
    except DamagedFile:
        yield Fault(RUN_KEY, "is damaged", "")


def faults_of(store: ObjectStore, verified: Verified) -> tuple[list[Fault], list[Fault]]:
    """Every damaged file of a run, all of it read, and what is missing."""
    run = Run(store)
    damaged = list(damaged_files(run, verified))
    bad_rows = {fault.key for fault in damaged}
    claims = Claims(run.video_batches(skip=bad_rows))
    found = list(missing(run, claims))
    if run.complete:
        found += [*_without_row(store), *_run_json(store)]
    return damaged, found


# --- what it comes to --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What all rows come to."""

    figures: dict[str, Any]
    """videos, ok, partial, quarantined, frames, corrupt_frames, keys, aki (None without keys),
    key_net_calls_saved, duration_s (seconds of video), cpu_s, gpu_s. With regions aki and the calls saved
    count pixels that N saw, in frames' worth."""
    not_ok: pa.Table
    """Rows of videos that are partial or quarantined (`VIDEOS_SCHEMA`)."""

    @property
    def exit_code(self) -> int:
        """0, or 3 when a video is quarantined."""
        return 3 if self.figures["quarantined"] else 0


def totals_of(batches: Iterable[pa.Table]) -> Totals:
    """The totals of a run's rows (`VIDEOS_SCHEMA`)."""
    videos, sums = dict.fromkeys(STATUSES, 0), dict.fromkeys((*_SUMMED, "worth"), 0.0)
    aside = [VIDEOS_SCHEMA.empty_table()]
    for rows in batches:
        for count in pc.value_counts(rows["status"]).to_pylist():  # type: ignore[attr-defined]
            videos[count["values"]] += count["counts"]
        for name in _SUMMED:
            sums[name] += pc.sum(rows[name]).as_py() or 0  # type: ignore[attr-defined]
        sums["worth"] += _worth(rows)
        aside.append(rows.filter(pc.field("status") != "ok"))
    frames, keys = int(sums["decoded_frames"]), int(sums["keys"])
    worth = keys if abs(sums["worth"] - keys) < 1e-6 * max(1, keys) else sums["worth"]
    figures = {
        "videos": sum(videos.values()),
        **videos,
        "frames": frames,
        "corrupt_frames": int(sums["corrupt_frames"]),
        "keys": keys,
        "aki": frames / worth if worth else None,
        "key_net_calls_saved": frames - keys if worth == keys else round(frames - worth),
        **{name: sums[name] for name in ("duration_s", "cpu_s", "gpu_s")},
    }
    return Totals(figures=figures, not_ok=pa.concat_tables(aside))


def _worth(rows: pa.Table) -> float:
    """Keys of these videos in frames' worth of pixels: with regions not the frames that have a key."""
    columns = (rows[name].to_pylist() for name in ("decoded_frames", "aki", "keys"))
    return sum(frames / aki if aki else keys for frames, aki, keys in zip(*columns, strict=True))
