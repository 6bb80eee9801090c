"""How a run that lacks something becomes whole again.

A repair makes nothing itself: it takes away what is damaged and the rows of the videos that lack something,
and the run goes on as after any crash. Segments whose parts are all there are left alone, the others are run
again from their first frame (or a state that an interrupted repair left); what is there is compared, what is
missing is written.
The row of such a video waits beside its states meanwhile and comes back as it was: a repair changes no
verdict. A quarantined video that lacks something is tried again as a whole.

Order: copies of the rows, then all damaged files go, then `_SUCCESS`, then the rows. So wherever a repair is
killed, what is left is what it was, or is seen to lack something, or is an unfinished run that any driver
completes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vidseg_core.config.words import count
from vidseg_core.kit.progress import Reporter
from vidseg_core.kit.whole import faults_of
from vidseg_core.pipeline.kept import read_row
from vidseg_core.store.checked import why_damaged
from vidseg_core.store.keys import SUCCESS_KEY, kept_key, states_prefix, video_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.soundness import Fault, Verified


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
                for info in list(store.list(states_prefix(video_id))):
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
