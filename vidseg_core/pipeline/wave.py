"""One wave: plan its videos, run the branches, take receipts, close videos.

Everything here is bookkeeping on the driver. A wave bounds it: two thousand videos are run and closed, and
the next two thousand planned meanwhile, before any other is looked at. If a cell dies, the videos it leaves
open are planned once more: what is committed counts, the rest is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.config.words import count
from vidseg_core.engine.assemble import NetFacts
from vidseg_core.kit.progress import Counts, Reporter
from vidseg_core.kit.ray_session import ClusterError
from vidseg_core.media import MediaLimits
from vidseg_core.pipeline import telemetry
from vidseg_core.pipeline.branches import Stages, packed, share_of_store
from vidseg_core.pipeline.cells import Cells
from vidseg_core.pipeline.commit_stage import CommitStage
from vidseg_core.pipeline.decode_stage import DecodeStage
from vidseg_core.pipeline.drain import Drain, Drained
from vidseg_core.pipeline.ending import close_video
from vidseg_core.pipeline.kept import cannot, kept_videos
from vidseg_core.pipeline.order import interleave
from vidseg_core.pipeline.plan_stage import (
    PlannedUnit,
    PlanOptions,
    PlanStage,
    VideoWork,
    planned_units,
    read_works,
    resume_point,
)
from vidseg_core.pipeline.planning import Planning
from vidseg_core.pipeline.rows import Receipt, messages
from vidseg_core.pipeline.sizing import size_up
from vidseg_core.pipeline.tally import SegmentTally, VideoTally, quarantine_row
from vidseg_core.plan.branches import assign_branches
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import verdict_key, video_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.parts import list_states

_SWEEP_EVERY = 16
_DRAINED_IN_A_ROW = 64
"""Receipts a branch: more than its decoders have in hand when the drain begins."""
_REPLAYED_CALLS = 4
"""More than an engine actor has in flight: a restarted one asks for the state before the oldest of them."""
_MOST_LOSSES = 5
"""So many times in a wave videos may be left open, because a cell died; then the run ends."""


class WaveRunner:
    """Runs waves one after another; keeps the counts that people see."""

    def __init__(
        self,
        config: SegmentConfig,
        store: ObjectStore,
        limits: MediaLimits,
        net: NetFacts,
        counts: Counts,
        report: Reporter,
        drain: Drain,
    ) -> None:
        self._config, self._store, self._counts, self._report = config, store, counts, report
        self._drain, self._said = drain, False
        self.given_up: list[DamagedFile] = []
        """Why videos that were done before lack frames, and go on doing so."""
        self._plan = PlanStage(store, limits, PlanOptions.of(config, kept_videos(store)))
        self._decode = DecodeStage(store, limits, drain.mark())
        self._commit = CommitStage(
            store, len(net.class_names), confidence=isinstance(config, PseudoLabelConfig)
        )

    def run(self, waves: Iterable[Sequence[VideoInput]]) -> None:
        """Bring every video to its row in ``videos/``, wave by wave; `Drained` if it was asked to end."""
        plans = (Planning(videos, self._plan) for videos in waves)
        plan = next(plans, None)
        while plan is not None:
            self._ahead = next(plans, None)
            try:
                self._run_wave(plan)
            except BaseException:
                if self._ahead is not None:
                    self._ahead.close()
                raise
            plan = self._ahead

    def _run_wave(self, plan: Planning) -> None:
        self._counted: dict[str, VideoTally] = {}
        why: object = None
        for _ in range(1 + _MOST_LOSSES):
            cells, open_videos = self._run_plan(plan)
            if self._drain.requested:
                raise Drained
            if cells is None or not open_videos:
                return
            why = cells.lost[-1] if cells.lost else "some of their receipts never came"
            what = f"a cell was lost ({type(why).__name__})" if cells.lost else why
            left = f"{count(len(open_videos), 'video')} left open, to be planned again"
            self._report.say(f"{what}; {left}")
            self._counted = open_videos
            plan = Planning([v for v in plan.videos if v.video_id in open_videos], self._plan)
        raise ClusterError(
            f"videos were left open {1 + _MOST_LOSSES} times in one wave; the last time: {why}"
        )

    def _run_plan(self, plan: Planning) -> tuple[Cells | None, dict[str, VideoTally]]:
        """The cells that ran (None: there was nothing to run), and what they left open by video id."""
        cells = None
        with closing(plan), ThreadPoolExecutor(max_workers=8) as pool:
            self._jobs: list[Future[None]] = []
            tallies, segments = self._take_plan(plan, pool)
            if segments and not self._drain.requested:
                cells = self._cells(segments)
                self._take_all(tallies, cells, pool)
            for job in self._jobs:
                job.result()
        return cells, {video_id: tally for video_id, tally in tallies.items() if not tally.done}

    def _take_plan(
        self, plan: Planning, pool: ThreadPoolExecutor
    ) -> tuple[dict[str, VideoTally], list[tuple[int, list[PlannedUnit]]]]:
        """Tallies by video id, and (frames left, unit rows) of every open segment."""
        tallies: dict[str, VideoTally] = {}
        segments: list[tuple[int, list[PlannedUnit]]] = []
        for table in plan.tables(lambda: self._drain.requested):
            for work, blob in read_works(table):
                if work.reason is not None:
                    self._quarantine(work, pool)
                    continue
                tally = tallies[work.video_id] = tally_of(work)
                self._count_plan(tally)
                rows = planned_units(work, blob, self._config.lanes > 1)
                segments.extend(
                    (s.frames_left, r) for s, r in zip(work.works(), rows, strict=True) if s.units
                )
                if tally.done:
                    self._close(tally, pool)
                self._report.tick(self._counts)
        return tallies, segments

    def _cells(self, segments: Sequence[tuple[int, list[PlannedUnit]]]) -> Cells:
        config = self._config
        sizing = size_up(config, len(segments))
        self._device = sizing.device
        groups = assign_branches([frames for frames, _ in segments], sizing.branches)
        plans = [
            packed(interleave([segments[i][1] for i in group], config.lanes), config.lanes)
            for group in groups
            if group
        ]
        stages = Stages(
            config=config,
            store=self._store,
            sizing=sizing,
            decode=self._decode,
            commit=self._commit,
            store_share=share_of_store([unit for _, rows in segments for unit in rows], sizing),
        )
        return Cells(plans, stages)

    def _take_all(self, tallies: dict[str, VideoTally], cells: Cells, pool: ThreadPoolExecutor) -> None:
        """Every receipt; when draining, until only drained shards come: the rest of the wave may be long."""
        drained = 0
        with closing(cells.receipts()) as tables:
            for table in tables:
                if self._drain.requested and not self._said:
                    self._said = True
                    self._report.say("asked to end: finishing what is in flight (again to end at once)")
                for receipt, _ in messages(table, Receipt):
                    drained = drained + 1 if receipt.drained else 0
                    self._take(tallies[receipt.video_id], receipt, pool)
                if drained >= _DRAINED_IN_A_ROW * cells.branches:
                    return
                if self._ahead is not None and not self._drain.requested:
                    self._ahead.pump()

    def _take(self, tally: VideoTally, receipt: Receipt, pool: ThreadPoolExecutor) -> None:
        if self._report.is_json and receipt.part >= 0:
            self._report.event("part", **_told(receipt))
        self._counts.frames += receipt.frames
        self._counts.keys += receipt.keys
        self._counts.labelled += receipt.labelled
        if tally.take(receipt):
            self._close(tally, pool)
        elif receipt.part >= 0 and receipt.part % _SWEEP_EVERY == _SWEEP_EVERY - 1:
            prefix = tally.segments[receipt.segment].committed
            margin = _REPLAYED_CALLS * self._config.lanes
            self._jobs.append(
                pool.submit(_sweep, self._store, receipt.video_id, receipt.segment, prefix, margin)
            )
        self._report.tick(self._counts)

    def _close(self, tally: VideoTally, pool: ThreadPoolExecutor) -> None:
        try:
            row = tally.row(self._device)
        except DamagedFile as problem:
            self._give_up(tally.video_id, problem, pool)
            return
        self._counts.videos += 1
        if row["status"] == "quarantined":
            self._counts.quarantined += 1
            telemetry.count("quarantined", reason=str(row["reason"]).partition(":")[0])
        self._jobs.append(pool.submit(close_video, self._store, row))

    def _quarantine(self, work: VideoWork, pool: ThreadPoolExecutor) -> None:
        if work.kept is not None:
            self._give_up(work.video_id, cannot(work.kept, f"{work.reason}: {work.message}"), pool)
            return
        row = quarantine_row(work.video_id, work.uri, work.reason or "", work.message or "")
        self._counts.videos += 1
        self._counts.quarantined += 1
        telemetry.count("quarantined", reason=work.reason or "")
        self._jobs.append(pool.submit(close_video, self._store, row))

    def _give_up(self, video_id: str, problem: DamagedFile, pool: ThreadPoolExecutor) -> None:
        """A video that was done cannot be completed again: it stays open, and the others run on."""
        if self._store.exists(video_key(video_id)):  # another driver has completed it
            return
        self.given_up.append(problem)
        self._jobs.append(pool.submit(self._store.delete, verdict_key(video_id)))

    def _count_plan(self, tally: VideoTally) -> None:
        """Count what is planned; of a video that a lost cell left, only what its receipts did not tell."""
        before = self._counted.get(tally.video_id)
        if before is None:
            self._counts.frames_total += tally.frames
            self._counts.resumed_frames += tally.frames_done
        self._counts.frames += tally.frames_done - (before.frames_done if before else 0)
        self._counts.keys += tally.keys_done - (before.keys_done if before else 0)

    _device = "cpu"


def tally_of(work: VideoWork) -> VideoTally:
    """The counts of a planned video, with what an earlier driver committed."""
    works = work.works()
    segments = {
        s.segment: SegmentTally(
            parts=s.parts, committed=s.committed, closed=s.totals is not None, totals=s.totals or {}
        )
        for s in works
    }
    return VideoTally(
        work.video_id,
        work.uri,
        work.facts,
        work.frames,
        work.damage,
        segments,
        frames_done=sum(s.frames_done for s in works),
        keys_done=sum(s.keys_done for s in works),
        kept=work.kept,
    )


def _told(receipt: Receipt) -> dict[str, Any]:
    """What the log says of a receipt."""
    names = ("video_id", "segment", "part", "frames", "keys", "created", "bytes", "commit_s", "fatal")
    return {name: getattr(receipt, name) for name in names}


def _sweep(store: ObjectStore, video_id: str, segment: int, prefix: int, margin: int) -> None:
    """Drop saved states that neither a resume nor a call that is made again can need any more."""
    states = [state for state in list_states(store, video_id) if state.segment == segment]
    keep = resume_point(states, prefix)
    for state in states:
        if keep is not None and state.next_shard < keep.next_shard - margin:
            store.delete(str(state))
