"""The engine actor: shards of one branch in, parts whose frames are final out, state kept and handed over.

One actor owns a branch, so every shard of a segment passes here, in order. After each call the cursor of
every segment that moved is put into the store *before* its rows leave: an actor that is restarted, or a job
that is resumed, finds the state that belongs to the next shard there and nowhere else. If the actor dies
between the two, the shard is replayed from the state before it and gives the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from vidseg_core.config.segment import SegmentConfig
from vidseg_core.engine import Engine, FrameInput, FrameResult
from vidseg_core.media import Pictures
from vidseg_core.pipeline.build import build_engine, new_state
from vidseg_core.pipeline.commit_stage import CommitStage
from vidseg_core.pipeline.cursor import ROW_FIELDS, SegmentCursor
from vidseg_core.pipeline.rows import PartMessage, ShardMessage, messages, pictures_of, to_table
from vidseg_core.pipeline.saved import CursorError
from vidseg_core.store.keys import state_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.parts import list_states

_Shard = tuple[ShardMessage, pa.Buffer]


class EngineStage:
    """Ray Data callable class, one instance per branch.

    With ``commit`` it writes its parts itself and gives receipts; without, it gives the parts.
    Constructor arguments stay small (Ray issue 53727).
    """

    def __init__(
        self, config: SegmentConfig, store: ObjectStore, device: str, commit: CommitStage | None = None
    ) -> None:
        self._config = config
        self._commit = commit
        self._store = store
        self._engine: Engine = build_engine(config, device)
        self._cursors: dict[tuple[str, int], SegmentCursor] = {}
        self._dead: set[tuple[str, int]] = set()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Advance every segment that has a shard in ``batch``; several at once when they differ."""
        for group in _lockstep_groups(messages(batch, ShardMessage)):
            yield from self._advance(group)

    def _advance(self, group: Sequence[_Shard]) -> Iterator[pa.Table]:
        live, outcome = [], []
        for shard in group:
            (live if self._enter(shard[0]) else outcome).append(shard)
        for message, _ in outcome:
            yield self._hand_out(self._death(message), ())
        if not live:
            return
        self._run(live)
        for message, _ in live:
            yield from self._leave(message)

    def _enter(self, message: ShardMessage) -> bool:
        """Fetch the segment's cursor; False when this shard ends the segment by a fatal verdict."""
        key = (message.video_id, message.segment)
        if message.fatal is not None or key in self._dead:
            return False
        if key not in self._cursors:
            self._cursors[key] = self._restore(message)
        self._cursors[key].take_shard(message.shard, len(message.frame_index))
        return True

    def _restore(self, message: ShardMessage) -> SegmentCursor:
        if message.shard == 0:
            return SegmentCursor(state=new_state(self._config, message.video_id, message.segment))
        for state in list_states(self._store, message.video_id):
            if (state.segment, state.next_shard) == (message.segment, message.shard):
                return SegmentCursor.from_bytes(self._store.get(str(state)))
        raise CursorError(
            f"video {message.video_id}, segment {message.segment}: no saved state for shard {message.shard}"
        )

    def _run(self, live: Sequence[_Shard]) -> None:
        """Lock step over the frames of the shards; segments drop out as their shards end."""
        started = time.perf_counter()
        cursors = [self._cursors[m.video_id, m.segment] for m, _ in live]
        clips = [pictures_of(m, blob) for m, blob in live]
        for t in range(max(len(clip) for clip in clips)):
            active = [v for v, clip in enumerate(clips) if t < len(clip)]
            frames = [_frame(live[v][0], clips[v], t) for v in active]
            rows = self._engine.step([cursors[v].state for v in active], frames)
            for v, final in zip(active, rows, strict=True):
                cursors[v].add(final)
        for v, (message, _) in enumerate(live):
            if message.ends_segment:
                cursors[v].add(self._engine.finish([cursors[v].state])[0])
        self._account(live, cursors, time.perf_counter() - started)

    def _account(self, live: Sequence[_Shard], cursors: Sequence[SegmentCursor], seconds: float) -> None:
        total = sum(len(m.frame_index) for m, _ in live) or 1
        for (message, _), cursor in zip(live, cursors, strict=True):
            cursor.totals.decode_s += message.decode_s
            cursor.totals.engine_s += seconds * len(message.frame_index) / total
            cursor.totals.error = cursor.totals.error or message.error

    def _leave(self, message: ShardMessage) -> Iterator[pa.Table]:
        """Save the cursor, then hand out the parts that became whole (or a heartbeat)."""
        cursor = self._cursors[message.video_id, message.segment]
        parts = cursor.pop_parts()
        key = state_key(message.video_id, message.segment, cursor.next_shard, cursor.next_part)
        self._store.put(key, cursor.to_bytes())
        whole = [self._part(message, number, rows) for number, rows in parts]
        last = whole.pop() if whole else (PartMessage(message.video_id, message.segment, -1), [])
        for part, labels in whole:
            yield self._hand_out(part, labels)
        if message.ends_segment:
            last[0].closes_segment = True
            last[0].totals = cursor.totals_dict()
            del self._cursors[message.video_id, message.segment]
        yield self._hand_out(*last)

    def _hand_out(self, part: PartMessage, labels_THW: Sequence[np.ndarray]) -> pa.Table:
        """The part for the commit stage, or its receipt."""
        if self._commit is not None:
            return to_table(self._commit.commit(part, labels_THW))
        return to_table(part, np.stack(labels_THW).reshape(-1) if len(labels_THW) else None)

    def _death(self, message: ShardMessage) -> PartMessage:
        """The segment ends here: what was committed stays, what was pending is given up."""
        key = (message.video_id, message.segment)
        cursor = self._cursors.pop(key, None)
        part = PartMessage(message.video_id, message.segment, -1)
        if key not in self._dead:
            self._dead.add(key)
            part.closes_segment, part.fatal = True, message.fatal
            part.totals = cursor.totals_dict() if cursor else {"error": message.error}
            part.totals["error"] = message.error
        return part

    def _part(
        self, message: ShardMessage, number: int, rows: Sequence[FrameResult]
    ) -> tuple[PartMessage, list[np.ndarray]]:
        part = PartMessage(message.video_id, message.segment, number)
        for name in ROW_FIELDS:
            setattr(part, name, [getattr(row, name) for row in rows])
        if self._config.masks.size == "source":
            part.source_height, part.source_width = message.source_height, message.source_width
        if rows:
            part.height, part.width = rows[0].labels_HW.shape
        return part, [row.labels_HW for row in rows]


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
