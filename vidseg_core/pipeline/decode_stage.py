"""Decode: a planned unit in, its shards out, in order, always exactly as many as planned.

The decoding itself happens in a child process (``media.child``) that can be killed at a deadline; this task
only waits for it and wraps the child's shared memory as Arrow rows. Whatever goes wrong with a video becomes
a shard that says so: Ray sees a task that worked, so it neither retries a poisoned file for ever nor fails
the other videos.

A fatal verdict (the decoder hung or crashed, the engine failed) is also written as a marker object, so that
the video's remaining units do not each pay the deadline again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import pyarrow as pa

from vidseg_core.config.segment import MediaConfig
from vidseg_core.media import (
    DecodeChild,
    DecodeUnit,
    FrameShard,
    MediaError,
    MediaLimits,
    child_for_this_process,
)
from vidseg_core.pipeline import telemetry
from vidseg_core.pipeline.drain import DrainMark, Mark
from vidseg_core.pipeline.patience import may_pass
from vidseg_core.pipeline.rows import ShardMessage, UnitMessage, messages, read_unit, shard_table
from vidseg_core.store.errors import DamagedFile
from vidseg_core.store.keys import verdict_key
from vidseg_core.store.objects import ObjectStore
from vidseg_core.store.small_files import read_object

FATAL_REASONS = frozenset(
    {"decode_timeout", "decode_crash", "too_large", "unreadable", "not_found", "changed"}
)


def limits_of(media: MediaConfig) -> MediaLimits:
    """What decoders of a run may take."""
    return MediaLimits(
        max_pixels=media.max_pixels, deadline_s=media.decode_deadline_s, memory_bytes=media.memory_bytes
    )


def known_verdict(store: ObjectStore, video_id: str) -> tuple[str, str] | None:
    """(reason code, sentence) of the fatal verdict on a video, if there is one."""
    try:
        verdict = read_object(store, verdict_key(video_id), {"reason!": str, "error!": str}, "")
    except (FileNotFoundError, DamagedFile):  # then it is found out again
        return None
    return verdict["reason"], verdict["error"]


class DecodeStage:
    """The decode function of a branch; small and picklable, so that Ray ships it as a plain task."""

    def __init__(
        self,
        store: ObjectStore,
        limits: MediaLimits,
        drain: Mark | None = None,
        child: DecodeChild | None = None,
    ) -> None:
        """No ``child``: the one of the process that this comes to."""
        self._store = store
        self._child = child
        self._drain: Mark = drain or DrainMark(store)
        self._limits = limits

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Decode every unit of ``batch``, shard by shard."""
        for message, blob in messages(batch, UnitMessage):
            unit, _ = read_unit(message, np.frombuffer(blob, dtype=np.int64))
            yield from self._decode(message, unit)

    def _decode(self, message: UnitMessage, unit: DecodeUnit) -> Iterator[pa.Table]:
        start = message.first_shard + message.skip_shards
        planned = range(start, start + message.take_shards)
        fatal, error = known_verdict(self._store, message.video_id) or (None, None)
        done, attempts = 0, 0
        while fatal is None and error is None and done < len(planned) and not self._drain.is_set():
            try:
                for table in self._read(message, unit, planned[done:], message.skip_shards + done):
                    yield table
                    done += 1
                    if self._drain.is_set():
                        break
            except MediaError as problem:
                if self._drain.is_set():  # a decoder that is ended because of that says nothing of the video
                    break
                attempts += 1
                if not may_pass(problem, attempts):  # else a fresh child goes on where this one fell
                    fatal, error = self._judge(message.video_id, problem)
        for number in planned[done:]:
            lost = self._shard_message(message, unit, number, None)
            lost.fatal, lost.error = fatal, error
            lost.drained = fatal is None and error is None
            yield shard_table(lost, None)

    def _read(
        self, message: UnitMessage, unit: DecodeUnit, numbers: Sequence[int], skip: int
    ) -> Iterator[pa.Table]:
        child = self._child or child_for_this_process(self._limits)
        started = time.perf_counter()
        with closing(child.decode(unit, message.shard_frames, skip)) as shards:
            for number, shard in zip(numbers, shards, strict=False):
                telemetry.count("decoded_frames", len(shard))
                telemetry.count("decode_seconds", time.perf_counter() - started)
                yield shard_table(self._shard_message(message, unit, number, shard), shard)
                started = time.perf_counter()

    def _shard_message(
        self, message: UnitMessage, unit: DecodeUnit, number: int, shard: FrameShard | None
    ) -> ShardMessage:
        last = message.first_shard + message.shards - 1
        row = ShardMessage(
            video_id=message.video_id,
            segment=message.segment,
            shard=number,
            ends_segment=message.ends_segment and number == last,
            height=unit.height,
            width=unit.width,
            source_height=message.source_height,
            source_width=message.source_width,
            mirrored=message.mirrored,
        )
        if shard is not None:
            row.frame_index = shard.frame_index.tolist()
            row.pts_s = shard.pts_s.tolist()
            row.is_corrupt = shard.is_corrupt.tolist()
            row.layouts = [layout.to_list() for layout in shard.pictures.layouts]
            row.layout_of = shard.pictures.layout_of
            row.decode_s = shard.cpu_s
            row.error = shard.error
        return row

    def _judge(self, video_id: str, problem: MediaError) -> tuple[str | None, str]:
        """Fatal reasons end the video and are remembered.

        Any other error costs the rest of this unit only.
        """
        text = f"{problem.reason}: {problem}"
        if problem.reason not in FATAL_REASONS:
            return None, text
        self._store.put(verdict_key(video_id), json.dumps({"reason": problem.reason, "error": text}).encode())
        return problem.reason, text


def decode_units(batch: pa.Table, stage: DecodeStage) -> Iterator[pa.Table]:
    """Ray Data function of the decode stage."""
    yield from stage(batch)
