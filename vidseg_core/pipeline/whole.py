"""Whether a run is whole, and how it becomes so again.

Model: a run is whole if every input has its row in `videos/`, every row its parts (`store.soundness`), and
`_SUCCESS` stands over nothing less. A repair makes nothing itself: it takes away what is damaged and the rows
of the videos that lack something, and the run goes on as after any crash. Segments whose parts are all there
are left alone, the others are run again from their first frame (or a state that an interrupted repair left);
what is there is compared, what is missing is written.
The row of such a video waits beside its states meanwhile and comes back as it was: a repair changes no
verdict. A quarantined video that lacks something is tried again as a whole.

Order: copies of the rows, then all damaged files go, then `_SUCCESS`, then the rows. So wherever a repair is
killed, what is left is what it was, or is seen to lack something, or is an unfinished run that any driver
completes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa

from vidseg_core.config.words import count
from vidseg_core.pipeline.kept import kept_key, read_row
from vidseg_core.pipeline.manifest import read_inputs
from vidseg_core.pipeline.progress import Reporter
from vidseg_core.pipeline.totals import Totals, totals_of
from vidseg_core.plan.video_list import VideoList, text_column
from vidseg_core.store.checked import why_damaged
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import RUN_KEY, STATE_PREFIX, SUCCESS_KEY, VIDEOS_PREFIX, video_key
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


# --- repair ------------------------------------------------------------------------------------------------


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


def repair(store: ObjectStore, report: Reporter, *, dry: bool = False) -> None:
    """Take away what is damaged, so that the run makes it again; `dry`: only say what that is."""
    report.say(f"repair: reading every file of {store.root}")
    verified = Verified()
    damaged, absent = faults_of(store, verified)
    for fault in [*damaged, *absent]:
        report.say(f"{fault}", video_id=fault.video_id)
    read = count(verified.files, "file")
    if not damaged and not absent:
        report.say(f"nothing to repair: {read} read, and nothing is damaged or missing")
        return
    verb = "would be made again" if dry else "to be made again"
    report.say(f"{read} read, {len(damaged):,} damaged, {len(absent):,} missing: {verb}")
    if not dry:
        _take_away(store, damaged, {fault.video_id for fault in [*damaged, *absent] if fault.video_id})


def _take_away(store: ObjectStore, damaged: Sequence[Fault], video_ids: Collection[str]) -> None:
    closed = []
    for video_id in sorted(video_ids):
        row = read_row(store, video_id, video_key(video_id))
        if row is not None:
            closed.append(video_id)
            if row["status"] == "quarantined":
                for info in list(store.list(f"{STATE_PREFIX}video={video_id}/")):
                    store.delete(info.key)
            else:
                store.put(kept_key(video_id), store.get(video_key(video_id)))
    for fault in damaged:
        if _still_damaged(store, fault.key):  # another driver may have made it again by now
            store.delete(fault.key)
    store.delete(SUCCESS_KEY)
    for video_id in closed:
        store.delete(video_key(video_id))


def _still_damaged(store: ObjectStore, key: str) -> bool:
    try:
        return why_damaged(store.get(key), key) is not None
    except FileNotFoundError:
        return False
