"""Whether a run is whole: what it lacks of what was committed, and what of it is damaged.

Model: a run is whole if every input has its row in `videos/`, every row its parts (`store.soundness`), and
`_SUCCESS` stands over nothing less.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa

from vidseg_core.kit.manifest import read_inputs
from vidseg_core.kit.totals import Totals, totals_of
from vidseg_core.plan.video_list import VideoList, text_column
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import RUN_KEY, VIDEOS_PREFIX, video_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.run import Run
from vidseg_core.store.soundness import Claims, Fault, Verified, damaged_files, missing, raise_for


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
