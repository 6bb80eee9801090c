"""The stages of a run in this process, without Ray.

    plan -> units -> decode (in its killable child; a thread keeps some shards ahead) -> engine -> commit

Model: one branch. On CPU the engine commits its parts itself; on a GPU a thread does, so that the net never
waits for zstd or for the store. Rows, states, commits and verdicts are those of the stages, so what one
executor has begun the other can go on with.
Invariant: when the iterator of receipts is closed, nothing of it runs any more.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Protocol

import cv2
import pyarrow as pa
import torch

from vidseg_core.config.errors import check
from vidseg_core.config.run_options import STORE_MB
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.pipeline.ahead import Ahead
from vidseg_core.pipeline.deaths import Lonely, Process
from vidseg_core.pipeline.decode_stage import DecodeStage
from vidseg_core.pipeline.drain import Drain
from vidseg_core.pipeline.engine_stage import EngineStage
from vidseg_core.pipeline.plan_stage import OpenSegment, input_tables, open_segments, read_works
from vidseg_core.pipeline.rows import owned
from vidseg_core.pipeline.stages import Stages
from vidseg_core.plan.branches import assign_branches, interleave
from vidseg_core.plan.video_list import VideoInput

_SHARDS_AHEAD = 2
"""Decoded shards that may wait for each lane of the engine, where memory is enough; and at least."""
_FLOWS = 4
"""Flows that may be worked on side by side: no other engine wants the cores."""
_PARTS_BEHIND = 4
"""Parts that may wait for the thread that commits."""


def gpus_here(config: SegmentConfig) -> int:
    """GPUs of this machine that the run may use."""
    return torch.cuda.device_count() if config.device != "cpu" and torch.cuda.is_available() else 0


def device_here(config: SegmentConfig) -> str:
    """What the engine runs on; `ConfigError` for a GPU that is not there."""
    gpus = gpus_here(config)
    check(config.device != "cuda" or gpus > 0, "--device", "cuda: this machine has no GPU (cpu or auto)")
    return "cuda" if gpus else "cpu"


@contextmanager
def threads_kept() -> Iterator[None]:
    """An engine sets the threads of its process; afterwards they are what they were."""
    before, cv2_before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        cv2.setNumThreads(cv2_before)


class Worker(Process, Protocol):
    """The process that a run is executed in; what it tells to whoever would replace it."""

    def begin(self) -> None:
        """From now on another can go on where this one dies."""
        ...

    def gets_on(self) -> None:
        """Something is committed."""
        ...


class Alone(Lonely):
    """The process of a library's caller, or of a test: nobody replaces it."""

    def begin(self) -> None:
        """Nobody listens."""

    def gets_on(self) -> None:
        """Nobody listens."""


class LocalPlanning:
    """The plan of some videos, made when it is read, and only once."""

    def __init__(self, videos: Sequence[VideoInput], stages: Stages) -> None:
        self.videos = videos
        self._blocks = input_tables(videos, len(videos))
        self._stage = stages.plan.with_child(stages.child)
        self._made: list[pa.Table] = []

    def pump(self) -> None:
        """Nothing is done ahead: there is one decoder, and it decodes."""

    def tables(self, stop: Callable[[], bool] = lambda: False) -> Iterator[pa.Table]:
        """The planner's answers, in order; no more of them once ``stop()``."""
        for number, block in enumerate(self._blocks):
            if stop():
                return
            if number == len(self._made):
                self._made.append(pa.concat_tables(self._stage(block)))
            yield self._made[number]

    def segments(self) -> Iterator[list[OpenSegment]]:
        """What is left to do, video by video."""
        for table in self.tables():
            for work, blob in read_works(table):
                yield open_segments(work, blob, single_shards=False)

    def close(self) -> None:
        """Nothing is under way."""


class _Stop:
    """For the decoder of this process: the run is to end, or nobody reads its shards any more."""

    def __init__(self, drain: Drain) -> None:
        self._drain, self.closed = drain, False

    def is_set(self) -> bool:
        """Whether to decode nothing more."""
        return self.closed or self._drain.requested


class LocalExecutor:
    """Runs a wave's segments in this process, one wave after the other with the same engine."""

    branches = 1
    wave_videos = 64

    def __init__(self, stages: Stages, device: str, drain: Drain, process: Worker) -> None:
        self._stages, self.device, self._drain, self._process = stages, device, drain, process
        self._commits_apart = device != "cpu"
        self._kept_engine: EngineStage | None = None
        self.lost: list[Exception] = []
        self.stepped: Callable[[int], None] = lambda frames: None

    def planning(self, videos: Sequence[VideoInput]) -> LocalPlanning:
        """The plan of some videos."""
        return LocalPlanning(videos, self._stages)

    def receipts(self, segments: Sequence[OpenSegment]) -> Generator[pa.Table]:
        """Receipts as they come. Closing it ends all that is under way."""
        self._process.begin()
        with self._shards(segments) as shards:
            engine = self._engine()
            batches = _batches(shards, self._stages.config.lanes)
            parts = (part for batch in batches for part in engine(batch))
            for receipt in self._committed(parts) if self._commits_apart else parts:
                self._process.gets_on()
                yield receipt

    def _engine(self) -> Callable[[pa.Table], Iterable[pa.Table]]:
        if self._kept_engine is None:
            self._kept_engine = self._new_engine()
        self._kept_engine.start_over()
        return self._kept_engine

    def _new_engine(self) -> EngineStage:
        stages, commit = self._stages, None if self._commits_apart else self._stages.commit
        flows = stages.config.flow_threads or min(_FLOWS, os.cpu_count() or 1)
        config = replace(stages.config, flow_threads=flows)
        return EngineStage(
            config, stages.store, self.device, commit, lambda: self._process, lambda n: self.stepped(n)
        )

    @contextmanager
    def _shards(self, segments: Sequence[OpenSegment]) -> Iterator[Iterable[pa.Table]]:
        """Decoded shards, made ahead, with pixels of their own: the decoder's are valid until the next."""
        stages, lanes = self._stages, self._stages.config.lanes
        order = assign_branches([segment.frames for segment in segments], 1)[0]
        units = interleave([segments[i].units for i in order], lanes)
        most = _SHARDS_AHEAD if self._process.replaces_another else shards_ahead(stages.config, segments)
        stop = _Stop(self._drain)
        decode = DecodeStage(stages.store, stages.limits, stop, stages.child)
        shards = Ahead((owned(shard) for unit in units for shard in decode(unit.row)), most)
        try:
            yield shards
        finally:
            stop.closed = True
            shards.close(lambda: _kill(stages.child.pid))

    def _committed(self, parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
        waiting: deque[Future[pa.Table]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for part in parts:
                waiting.append(pool.submit(lambda part: pa.concat_tables(self._stages.commit(part)), part))
                while waiting and (len(waiting) > _PARTS_BEHIND or waiting[0].done()):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def shards_ahead(config: SegmentConfig, segments: Sequence[OpenSegment]) -> int:
    """Decoded shards that may wait for the engine, within the memory for frames under way."""
    largest = max((unit.shard_bytes for segment in segments for unit in segment.units), default=0)
    room = (config.object_store_mb or STORE_MB) * 10**6 // max(1, largest)
    return max(_SHARDS_AHEAD, min(_SHARDS_AHEAD * min(config.lanes, len(segments)), room))


def _batches(shards: Iterable[pa.Table], lanes: int) -> Iterator[pa.Table]:
    batch: list[pa.Table] = []
    for shard in shards:
        batch.append(shard)
        if len(batch) == lanes:
            yield pa.concat_tables(batch)
            batch = []
    if batch:
        yield pa.concat_tables(batch)


def _kill(pid: int | None) -> None:
    """Somebody waits for the end of a run whose decoder may be hanging."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
