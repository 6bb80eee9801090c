"""One wave: plan its videos, run the branches, take receipts, close videos.

Everything here is bookkeeping on the driver. A wave bounds it: two thousand videos are planned, run and
closed before the next two thousand are looked at.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pyarrow as pa

from vidseg_core.config.pseudo_label import PseudoLabelConfig
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.media import MediaLimits
from vidseg_core.pipeline import telemetry
from vidseg_core.pipeline.branches import branch, data_context, plan_videos, receipts, share_of_store
from vidseg_core.pipeline.build import NetFacts
from vidseg_core.pipeline.commit_stage import CommitStage
from vidseg_core.pipeline.decode_stage import DecodeStage
from vidseg_core.pipeline.drain import Drain, Drained
from vidseg_core.pipeline.ending import close_video
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
from vidseg_core.pipeline.progress import Counts, Reporter
from vidseg_core.pipeline.ray_session import size_up
from vidseg_core.pipeline.rows import Receipt, messages
from vidseg_core.pipeline.tally import SegmentTally, VideoTally, quarantine_row
from vidseg_core.plan.branches import assign_branches
from vidseg_core.plan.inputs import VideoInput
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.parts import list_states

_SWEEP_EVERY = 16
_DRAINED_IN_A_ROW = 64
"""Receipts a branch: more than its decoders have in hand when the drain begins."""
_REPLAYED_CALLS = 4
"""More than an engine actor has in flight: a restarted one asks for the state before the oldest of them."""


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
        options = PlanOptions(
            working_size=config.working_size_spec,
            segment_frames=config.segment_frames,
            shard_frames=config.shard_frames,
            single_shards=config.lanes > 1,
        )
        self._plan = PlanStage(store, limits, options)
        self._decode = DecodeStage(store, limits, drain.mark())
        self._commit = CommitStage(
            store, len(net.class_names), confidence=isinstance(config, PseudoLabelConfig)
        )

    def run(self, videos: Sequence[VideoInput]) -> None:
        """Bring every video of the wave to its row in ``videos/``; `Drained` if it was asked to end."""
        with data_context(), ThreadPoolExecutor(max_workers=8) as pool:
            self._jobs: list[Future[None]] = []
            tallies, segments = self._make_plan(videos, pool)
            if segments and not self._drain.requested:
                self._run_segments(tallies, segments, pool)
            for job in self._jobs:
                job.result()
        if self._drain.requested:
            raise Drained

    def _make_plan(
        self, videos: Sequence[VideoInput], pool: ThreadPoolExecutor
    ) -> tuple[dict[str, VideoTally], list[tuple[int, list[PlannedUnit]]]]:
        """Tallies by video id, and (frames left, unit rows) of every open segment."""
        tallies: dict[str, VideoTally] = {}
        segments: list[tuple[int, list[PlannedUnit]]] = []
        for table in plan_videos(videos, self._plan):
            if self._drain.requested:
                break
            for work, blob in read_works(table):
                if work.reason is not None:
                    self._quarantine(work, pool)
                    continue
                tally = tallies[work.video_id] = tally_of(work)
                self._count_plan(work)
                rows = planned_units(work, blob, self._config.lanes > 1)
                segments.extend(
                    (s.frames_left, r) for s, r in zip(work.works(), rows, strict=True) if s.units
                )
                if tally.done:
                    self._close(tally, pool)
                self._report.tick(self._counts)
        return tallies, segments

    def _run_segments(
        self,
        tallies: dict[str, VideoTally],
        segments: Sequence[tuple[int, list[PlannedUnit]]],
        pool: ThreadPoolExecutor,
    ) -> None:
        sizing = size_up(self._config, len(segments))
        self._device = sizing.device
        units = [unit for _, rows in segments for unit in rows]
        share = share_of_store(units, sizing)
        groups = assign_branches([frames for frames, _ in segments], sizing.branches)
        with data_context(share):
            branches = [
                branch(
                    interleave([segments[i][1] for i in group], self._config.lanes),
                    config=self._config,
                    store=self._store,
                    sizing=sizing,
                    decode=self._decode,
                    commit=self._commit,
                )
                for group in groups
                if group
            ]
            self._take_all(tallies, receipts(branches), len(branches), pool)

    def _take_all(
        self,
        tallies: dict[str, VideoTally],
        tables: Generator[pa.Table],
        branches: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        """Every receipt; when draining, until only drained shards come: the rest of the wave may be long."""
        drained = 0
        with closing(tables):
            for table in tables:
                if self._drain.requested and not self._said:
                    self._said = True
                    self._report.say("asked to end: finishing what is in flight (again to end at once)")
                for receipt, _ in messages(table, Receipt):
                    drained = drained + 1 if receipt.drained else 0
                    self._take(tallies[receipt.video_id], receipt, pool)

                if drained >= _DRAINED_IN_A_ROW * branches:
                    return

    def _take(self, tally: VideoTally, receipt: Receipt, pool: ThreadPoolExecutor) -> None:
        if self._report.is_json and receipt.part >= 0:
            self._report.event("part", **_told(receipt))
        self._counts.frames += receipt.frames
        self._counts.keys += receipt.keys
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
        row = tally.row(self._device)
        self._counts.videos += 1
        if row["status"] == "quarantined":
            self._counts.quarantined += 1
            telemetry.count("quarantined", reason=str(row["reason"]).partition(":")[0])
        self._jobs.append(pool.submit(close_video, self._store, row))

    def _quarantine(self, work: VideoWork, pool: ThreadPoolExecutor) -> None:
        row = quarantine_row(work.video_id, work.uri, work.reason or "", work.message or "")
        self._counts.videos += 1
        self._counts.quarantined += 1
        telemetry.count("quarantined", reason=work.reason or "")
        self._jobs.append(pool.submit(close_video, self._store, row))

    def _count_plan(self, work: VideoWork) -> None:
        self._counts.frames_total += work.frames
        done = sum(segment.frames_done for segment in work.works())
        self._counts.frames += done
        self._counts.resumed_frames += done
        self._counts.keys += sum(segment.keys_done for segment in work.works())

    _device = "cpu"


def tally_of(work: VideoWork) -> VideoTally:
    """The counts of a planned video, with what an earlier driver committed."""
    segments = {
        s.segment: SegmentTally(
            parts=s.parts, committed=s.committed, closed=s.totals is not None, totals=s.totals or {}
        )
        for s in work.works()
    }
    return VideoTally(work.video_id, work.uri, work.facts, work.frames, work.damage, segments)


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
