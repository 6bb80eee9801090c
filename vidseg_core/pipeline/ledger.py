"""The driver's bookkeeping: which videos are open, what people see of it, and the rows of those that close.

Invariant: a video is closed once, when its tally says so; rows are written beside the run, and whatever fails
there is raised before the wave counts as done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from vidseg_core.kit.progress import Counts, Reporter, tame
from vidseg_core.pipeline import telemetry
from vidseg_core.pipeline.ending import close_video
from vidseg_core.pipeline.kept import cannot
from vidseg_core.pipeline.plan_stage import (
    OpenSegment,
    VideoWork,
    open_segments,
    read_works,
    resume_point,
)
from vidseg_core.pipeline.rows import Receipt, messages
from vidseg_core.pipeline.tally import VideoTally, quarantine_row, tally_of
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import verdict_key, video_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.parts import list_states

_SWEEP_EVERY = 16
_REPLAYED_CALLS = 4
"""More than an engine actor has in flight: a restarted one asks for the state before the oldest of them."""
_WRITERS = 8
_NOTES = 5
"""Notes on videos that people see while a run works; all of them are in the table."""
_LOGGED = ("video_id", "segment", "part", "frames", "keys", "created", "bytes", "commit_s", "fatal")
"""What the log says of a receipt."""


class Ledger:
    """One run's books, on the driver. ``device``: what engines run on."""

    def __init__(
        self, store: ObjectStore, counts: Counts, report: Reporter, *, lanes: int, device: str
    ) -> None:
        self._store, self._counts, self._report = store, counts, report
        self._lanes, self._device = lanes, device
        self._tallies: dict[str, VideoTally] = {}
        self._jobs: list[Future[None]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._noted = 0
        self.drained = 0
        """Receipts of drained shards that came in a row."""
        self.given_up: list[DamagedFile] = []
        """Why videos that were done before lack frames, and go on doing so."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Rows are written inside; all of them are there after it."""
        with ThreadPoolExecutor(_WRITERS) as self._pool:
            yield
            for job in self._jobs:
                job.result()
        self._jobs = []

    def take_plan(self, tables: Iterable[pa.Table]) -> list[OpenSegment]:
        """What is left to do of the videos that a plan tells of; those with nothing left are closed."""
        before, self._tallies = self._tallies, {}
        segments: list[OpenSegment] = []
        for table in tables:
            for work, blob in read_works(table):
                if work.reason is not None:
                    self._quarantine(work)
                    continue
                tally = self._tallies[work.video_id] = tally_of(work)
                self._say_note(work)
                self._count_plan(tally, before.get(work.video_id))
                segments += open_segments(work, blob, single_shards=self._lanes > 1)
                if tally.done:
                    self._close(tally)
                self._report.tick(self._counts)
        return segments

    def take(self, table: pa.Table) -> None:
        """What an executor says is committed, or has come to its end."""
        for receipt, _ in messages(table, Receipt):
            self.drained = self.drained + 1 if receipt.drained else 0
            self._take(self._tallies[receipt.video_id], receipt)

    def count_steps(self, frames: int) -> None:
        """So many frames more went through the engine of this process; their parts come later."""
        self._counts.under_way += frames
        self._report.tick(self._counts)

    def left_open(self) -> set[str]:
        """The planned videos that are not done; the same plan again counts what their receipts did not."""
        self._tallies = {video_id: tally for video_id, tally in self._tallies.items() if not tally.done}
        return set(self._tallies)

    def _take(self, tally: VideoTally, receipt: Receipt) -> None:
        if self._report.is_json and receipt.part >= 0:
            self._report.event("part", **{name: getattr(receipt, name) for name in _LOGGED})
        self._counts.frames += receipt.frames
        self._counts.under_way = max(0, self._counts.under_way - receipt.frames)
        self._counts.keys += receipt.keys
        self._counts.labelled += receipt.labelled
        if tally.take(receipt):
            self._close(tally)
        elif receipt.part >= 0 and receipt.part % _SWEEP_EVERY == _SWEEP_EVERY - 1:
            prefix = tally.segments[receipt.segment].committed
            margin = _REPLAYED_CALLS * self._lanes
            self._write(_sweep, self._store, receipt.video_id, receipt.segment, prefix, margin)
        self._report.tick(self._counts)

    def _close(self, tally: VideoTally) -> None:
        try:
            row = tally.row(self._device)
        except DamagedFile as problem:
            self._give_up(tally.video_id, problem)
            return
        self._write_row(row)

    def _say_note(self, work: VideoWork) -> None:
        note = work.facts.get("note")
        if note is None or self._noted >= _NOTES:
            return
        self._noted += 1
        more = "; more such notes: column note of videos/" if self._noted == _NOTES else ""
        self._report.say(f"note: {tame(work.uri, lines=False)}: {note}{more}", video_id=work.video_id)

    def _quarantine(self, work: VideoWork) -> None:
        if work.kept is not None:
            self._give_up(work.video_id, cannot(work.kept, f"{work.reason}: {work.message}"))
            return
        reason, message = work.reason or "", work.message or ""
        self._write_row(quarantine_row(work.video_id, work.uri, reason, message, work.facts))

    def _write_row(self, row: dict[str, Any]) -> None:
        self._counts.videos += 1
        if row["status"] == "quarantined":
            self._counts.quarantined += 1
            telemetry.count("quarantined", reason=str(row["reason"]).partition(":")[0])
        self._write(close_video, self._store, row)

    def _give_up(self, video_id: str, problem: DamagedFile) -> None:
        """A video that was done cannot be completed again: it stays open, and the others run on."""
        if self._store.exists(video_key(video_id)):  # another driver has completed it
            return
        self.given_up.append(problem)
        self._write(self._store.delete, verdict_key(video_id))

    def _write(self, work: Any, *arguments: Any) -> None:
        assert self._pool is not None, "outside `writing`"
        self._jobs.append(self._pool.submit(work, *arguments))

    def _count_plan(self, tally: VideoTally, before: VideoTally | None) -> None:
        """Count what is planned; of a video that a lost cell left, only what its receipts did not say."""
        if before is None:
            self._counts.frames_total += tally.frames
            self._counts.resumed_frames += tally.frames_done
        self._counts.frames += tally.frames_done - (before.frames_done if before else 0)
        self._counts.keys += tally.keys_done - (before.keys_done if before else 0)


def _sweep(store: ObjectStore, video_id: str, segment: int, prefix: int, margin: int) -> None:
    """Drop saved states that neither a resume nor a call that is made again can need any more."""
    states = [state for state in list_states(store, video_id) if state.segment == segment]
    keep = resume_point(states, prefix)
    for state in states:
        if keep is not None and state.next_shard < keep.next_shard - margin:
            store.delete(str(state))
