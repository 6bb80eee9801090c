"""The engine actor: shards of one branch in, parts whose frames are final out, state kept and handed over.

One actor owns a branch, so every shard of a segment passes here, in order. After each call the cursor of
every segment that moved is put into the store *before* its rows leave: an actor that is restarted, or a job
that is resumed, finds the state that belongs to the next shard there and nowhere else. If the actor dies
between the two, the shard is replayed from the state before it and gives the same rows.

What the engine raises on one segment ends that video and no other (`failures`); when memory does not suffice
for so many lanes, fewer are stepped at once. When the process itself dies, the one that takes its place runs
the shards that were in hand one at a time, and gives up a video of which processes die alone (`deaths`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine import FrameInput, FrameResult, StateError
from vidseg_core.engine.assemble import build_engine, new_state
from vidseg_core.engine.regions import AnyEngine
from vidseg_core.media import Pictures
from vidseg_core.pipeline import telemetry
from vidseg_core.pipeline.commit_stage import CommitStage
from vidseg_core.pipeline.cursor import SegmentCursor
from vidseg_core.pipeline.deaths import Deaths, Lonely, Process, crash_reason, memory_failure, start_failure
from vidseg_core.pipeline.decode_stage import known_verdict
from vidseg_core.pipeline.failures import (
    MOST_FAILURES,
    EngineBroken,
    free_memory,
    is_asked_to_end,
    is_device_fault,
    is_out_of_memory,
    reason_of,
)
from vidseg_core.pipeline.rows import (
    PartMessage,
    ShardMessage,
    frame_columns,
    messages,
    pictures_of,
    to_table,
)
from vidseg_core.pipeline.saved import CursorError
from vidseg_core.store.keys import START_PLACE, shard_place, state_key, verdict_key, video_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.parts import list_states

_Shard = tuple[ShardMessage, pa.Buffer]


@dataclass(frozen=True, slots=True)
class _Lane:
    """A segment that takes part in a call."""

    message: ShardMessage
    cursor: SegmentCursor
    pictures: Pictures


class EngineStage:
    """Ray Data callable class, one instance per branch.

    With ``commit`` it writes its parts itself and gives receipts; without, it gives the parts. ``stepped``
    is called with the number of frames of each step.
    Constructor arguments stay small (Ray issue 53727).
    """

    def __init__(
        self,
        config: SegmentConfig,
        store: ObjectStore,
        device: str,
        commit: CommitStage | None = None,
        process: Callable[[], Process] = Lonely,
        stepped: Callable[[int], None] = lambda frames: None,
    ) -> None:
        self._config = config
        self._stepped = stepped
        self._commit = commit
        self._store = store
        self._deaths = Deaths(store, process())
        self._careful = False
        self._broken: EngineBroken | None = None
        self._start(device)
        self._crashed: dict[str, tuple[str, str]] = {}
        self._cursors: dict[tuple[str, int], SegmentCursor] = {}
        self._dead: set[tuple[str, int]] = set()
        self._drained: set[tuple[str, int]] = set()
        self._most_lanes = max(1, config.lanes)
        self._failed_in_a_row = 0

    def _start(self, device: str) -> None:
        """Make the engine, unless one process after the other died of that."""
        toll = self._deaths.enter(START_PLACE) if self._deaths.careful else None
        if toll is not None and toll.is_final:
            self._broken = start_failure(toll, self._config)  # raised where Ray hands it on: in a call
        else:
            self._engine: AnyEngine = build_engine(self._config, device)
        self._deaths.leave()

    def start_over(self) -> None:
        """What comes next is planned anew: its segments go on from the store, whatever is known of them here.

        The nets stay, and what was learnt of them: how many lanes memory suffices for, failures in a row.
        """
        for known in (self._crashed, self._cursors, self._dead, self._drained):
            known.clear()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Advance every segment that has a shard in ``batch``; several at once when they differ."""
        if self._broken is not None:
            raise self._broken
        self._careful = self._deaths.careful
        for group in _lockstep_groups(messages(batch, ShardMessage)):
            yield from self._advance(group)
        self._deaths.count_call()

    def _advance(self, group: Sequence[_Shard]) -> Iterator[pa.Table]:
        """One shard each of some segments. What comes out has the order of ``group``, however they are run: a
        call that is made again after a death is taken on where the first one stopped."""
        live = [shard for shard in group if self._enter(shard[0])]
        if live and not self._careful:
            self._run(live)
        for shard in group:
            message, is_live = shard[0], any(shard is other for other in live)
            if is_live and self._careful:
                self._run_alone(shard)
            if is_live and not message.fatal:
                yield from self._leave(message)
            else:
                yield self._hand_out(self._death(message), ())

    def _enter(self, message: ShardMessage) -> bool:
        """Fetch the segment's cursor; False when this shard ends the segment, for good or for this driver."""
        key = (message.video_id, message.segment)
        if message.fatal is None and message.video_id in self._crashed:
            message.fatal, message.error = self._crashed[message.video_id]
        if message.drained or key in self._drained:
            self._drained.add(key)
            return False
        if message.fatal is not None or key in self._dead:
            return False
        if key not in self._cursors:
            cursor = self._restore(message)
            if cursor is None:
                message.fatal, message.error = self._why_ended(message)
                return False
            self._cursors[key] = cursor
        self._cursors[key].take_shard(message.shard, len(message.frame_index))
        return True

    def _restore(self, message: ShardMessage) -> SegmentCursor | None:
        """Where the segment stands before this shard; None if no state says so."""
        if message.shard == 0:
            return SegmentCursor(state=new_state(self._config, message.video_id, message.segment))
        for state in list_states(self._store, message.video_id):
            if (state.segment, state.next_shard) == (message.segment, message.shard):
                try:
                    return SegmentCursor.from_bytes(self._store.get(str(state)))
                except CursorError as problem:
                    raise CursorError(f"{self._store.root}: {state}: {problem}") from None
        return None

    def _why_ended(self, message: ShardMessage) -> tuple[str, str]:
        """The end of a segment whose shards still come: a process before this one gave its video up."""
        if known := known_verdict(self._store, message.video_id):
            return known
        if self._store.exists(video_key(message.video_id)):
            return "closed", "the video's row is written"
        raise CursorError(
            f"video {message.video_id}, segment {message.segment}: no saved state for shard {message.shard}"
        )

    def _run(self, live: Sequence[_Shard]) -> None:
        """Lock step over the frames of the shards; segments drop out as their shards end, or as they fail."""
        clock, cpu = time.perf_counter(), time.process_time()
        lanes = [_Lane(m, self._cursors[m.video_id, m.segment], pictures_of(m, blob)) for m, blob in live]
        for t in range(max(len(lane.pictures) for lane in lanes)):
            active = [lane for lane in lanes if t < len(lane.pictures) and not lane.message.fatal]
            for start in range(0, len(active), self._most_lanes):
                self._step(active[start : start + self._most_lanes], t)
            self._stepped(len(active))
        for lane in lanes:
            if lane.message.ends_segment and not lane.message.fatal:
                self._finish(lane)
        spent = time.process_time() - cpu, time.perf_counter() - clock
        self._account(live, [lane.cursor for lane in lanes], *spent)

    def _run_alone(self, shard: _Shard) -> None:
        """Run one shard and nothing else, unless another engine has given its video up, or processes died of
        it so often that this one does."""
        message, _ = shard
        if known := known_verdict(self._store, message.video_id):
            message.fatal, message.error = known
            return
        toll = self._deaths.enter(shard_place(message.video_id, message.segment, message.shard))
        if toll.is_final:
            if toll.memory_kills >= toll.crashes:
                self._deaths.leave()
                raise memory_failure(f"video {message.video_id}", self._config)
            message.fatal, message.error = crash_reason(message.segment, message.frame_index)
            self._deaths.give_up(message.video_id, message.error)
            self._end_video(message)
            self._crashed[message.video_id] = message.fatal, message.error
            return
        self._run([shard])
        if message.fatal:
            self._deaths.leave()

    def _step(self, lanes: Sequence[_Lane], t: int) -> None:
        """One frame of each lane. Who cannot be stepped ends alone: a step that raised has advanced no state,
        so the lanes are tried again in halves."""
        try:
            frames = [_frame(lane.message, lane.pictures, t) for lane in lanes]
            rows = self._engine.step([lane.cursor.state for lane in lanes], frames)
        except StateError:
            raise
        except (Exception, SystemExit) as problem:
            if is_asked_to_end(problem):
                raise
            if len(lanes) == 1:
                self._fail(lanes[0].message, lanes[0].message.frame_index[t], problem)
                return
            short_of_memory = is_out_of_memory(problem)
        else:
            for lane, final in zip(lanes, rows, strict=True):
                lane.cursor.add(final)
            return
        # Behind the handler: the traceback, which holds all that the step had in memory, is gone by now.
        half = len(lanes) // 2
        if short_of_memory:
            self._most_lanes = min(self._most_lanes, half)
            free_memory()
        self._step(lanes[:half], t)
        self._step(lanes[half:], t)

    def _finish(self, lane: _Lane) -> None:
        try:
            lane.cursor.add(self._engine.finish([lane.cursor.state])[0])
        except StateError:
            raise
        except (Exception, SystemExit) as problem:
            if is_asked_to_end(problem):
                raise
            self._fail(lane.message, lane.cursor.state.last_frame_index, problem)
        else:
            self._failed_in_a_row = 0

    def _fail(self, message: ShardMessage, frame: int, problem: BaseException) -> None:
        """The video ends here, for a reason that later units of it learn too; unless the device failed."""
        if is_device_fault(problem):
            raise EngineBroken(f"the device failed: {problem}") from problem
        message.fatal, text = reason_of(problem)
        message.error = f"{message.fatal}: frame {frame}: {text}"
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= MOST_FAILURES:
            raise EngineBroken(
                f"{self._failed_in_a_row} segments in a row failed in the engine, the last one (video "
                f"{message.video_id}): {message.error}; --retry_quarantined tries the quarantined again"
            ) from problem
        self._end_video(message)
        free_memory()

    def _end_video(self, message: ShardMessage) -> None:
        """Later units of the video learn that it has ended."""
        verdict = json.dumps({"reason": message.fatal, "error": message.error}).encode()
        self._store.put(verdict_key(message.video_id), verdict)

    def _account(
        self, live: Sequence[_Shard], cursors: Sequence[SegmentCursor], cpu_s: float, clock_s: float
    ) -> None:
        telemetry.count("engine_seconds", clock_s)
        total = sum(len(m.frame_index) for m, _ in live) or 1
        for (message, _), cursor in zip(live, cursors, strict=True):
            share = len(message.frame_index) / total
            cursor.totals.decode_s += message.decode_s
            cursor.totals.engine_s += cpu_s * share
            cursor.totals.device_s += clock_s * share
            cursor.totals.error = cursor.totals.error or message.error

    def _leave(self, message: ShardMessage) -> Iterator[pa.Table]:
        """Save the cursor, then hand out the parts that became whole (or a heartbeat)."""
        cursor = self._cursors[message.video_id, message.segment]
        parts = cursor.pop_parts()
        key = state_key(message.video_id, message.segment, cursor.next_shard, cursor.next_part)
        self._store.put(key, cursor.to_bytes())
        whole = [(self._part(message, number, rows), rows) for number, rows in parts]
        last = whole.pop() if whole else (PartMessage(message.video_id, message.segment, -1), [])
        for part, rows in whole:
            yield self._hand_out(part, rows)
        if message.ends_segment:
            last[0].closes_segment = True
            last[0].totals = cursor.totals_dict()
            del self._cursors[message.video_id, message.segment]
        committed = self._hand_out(*last)
        if self._careful:
            self._deaths.passed()
        yield committed

    def _hand_out(self, part: PartMessage, rows: Sequence[FrameResult]) -> pa.Table:
        """The part for the commit stage, or its receipt."""
        if self._commit is not None:
            return to_table(self._commit.commit(part, rows))
        labels = np.stack([row.labels_HW for row in rows]).reshape(-1) if rows else None
        return to_table(part, labels, frame_columns(FrameResult, rows))

    def _death(self, message: ShardMessage) -> PartMessage:
        """The segment ends here: what is committed stays, pending frames are given up, or saved (drained)."""
        key = (message.video_id, message.segment)
        cursor = self._cursors.pop(key, None)
        part = PartMessage(message.video_id, message.segment, -1)
        if key in self._drained:
            part.drained = True
            return part
        if key not in self._dead:
            self._dead.add(key)
            part.closes_segment, part.fatal = True, message.fatal
            part.totals = cursor.totals_dict() if cursor else {"error": message.error}
            part.totals["error"] = message.error
        return part

    def _part(self, message: ShardMessage, number: int, rows: Sequence[FrameResult]) -> PartMessage:
        part = PartMessage(message.video_id, message.segment, number)
        if self._config.masks.size == "source":
            part.source_height, part.source_width = message.source_height, message.source_width
            part.mirrored = message.mirrored
        if rows:
            part.height, part.width = rows[0].labels_HW.shape
        return part


def _lockstep_groups(shards: Sequence[_Shard]) -> Iterator[list[_Shard]]:
    """Split a batch so that no group holds two shards of one segment; order within a segment is kept."""
    group: list[_Shard] = []
    for shard in shards:
        if any((m.video_id, m.segment) == (shard[0].video_id, shard[0].segment) for m, _ in group):
            yield group
            group = []
        group.append(shard)
    if group:
        yield group


def _frame(message: ShardMessage, pictures: Pictures, t: int) -> FrameInput:
    return FrameInput(
        frame_index=message.frame_index[t],
        pts_s=message.pts_s[t],
        is_corrupt=message.is_corrupt[t],
        picture=pictures[t],
    )
