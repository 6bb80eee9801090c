"""The plan of one wave on Ray, made in tasks: a few at a time while the wave before it runs, as many as there
is room for when somebody waits for it.

Model: a wave's videos in small tables, one task each; `pump` sends a few more tasks off and never waits, so
the driver calls it between receipts and needs no thread.
Invariant: which tables there are and in which order they are read does not depend on how it was pumped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import ray

from vidseg_core.kit.worker_watch import TASK_TRIES, WorkerWatch
from vidseg_core.pipeline.plan_stage import PlanStage, input_tables
from vidseg_core.plan.video_list import VideoInput

_TASKS_PER_CPU = 2
"""Planning tasks for each CPU that a small corpus is cut into."""
_MOST_VIDEOS = 16
"""Most videos of one planning task."""
_UNDER_WAY = 4
"""Tasks a CPU that are sent off and not read, when somebody waits."""
_SHARE_AHEAD = 4
"""One CPU in so many plans ahead; the others decode."""
_PUMP_EVERY_S = 0.5
_ASK_EVERY_S = 1.0
"""While no answer comes: whether to stop."""


class RayPlanning:
    """A wave that is being planned. Nothing is sent off before `pump` or `tables` is called."""

    def __init__(self, videos: Sequence[VideoInput], stage: PlanStage) -> None:
        cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        tasks = max(-(-len(videos) // _MOST_VIDEOS), _TASKS_PER_CPU * cpus)
        self.videos = videos
        self._waiting = deque(input_tables(videos, tasks))
        self._few, self._many = max(1, cpus // _SHARE_AHEAD), _UNDER_WAY * cpus
        self._stage = ray.put(stage)
        self._sent: deque[ray.ObjectRef] = deque()
        self._pumped = -_PUMP_EVERY_S

    def pump(self) -> None:
        """Keep a few tasks under way."""
        now = time.monotonic()
        if not self._waiting or now - self._pumped < _PUMP_EVERY_S:
            return
        self._pumped = now
        sent = list(self._sent)
        busy = len(ray.wait(sent, num_returns=len(sent), timeout=0, fetch_local=False)[1]) if sent else 0
        for _ in range(min(self._few - busy, len(self._waiting))):
            self._send()

    def tables(self, stop: Callable[[], bool] = lambda: False) -> Iterator[pa.Table]:
        """The planner's answers, in order; no more of them once ``stop()``."""
        watch = WorkerWatch()
        while (self._waiting or self._sent) and not stop():
            while self._waiting and len(self._sent) < self._many:
                self._send()
            if ray.wait([self._sent[0]], timeout=_ASK_EVERY_S)[0]:
                WorkerWatch.progress += 1
                yield ray.get(self._sent.popleft())
            watch.look()

    def close(self) -> None:
        """Give up what has not been read; the few tasks under way end by themselves."""
        self._waiting.clear()
        self._sent.clear()

    def _send(self) -> None:
        self._sent.append(_plan_table.remote(self._waiting.popleft(), self._stage))


@ray.remote(num_cpus=1, max_retries=TASK_TRIES - 1, scheduling_strategy="SPREAD")
def _plan_table(videos: pa.Table, stage: PlanStage) -> pa.Table:
    return pa.concat_tables(stage(videos))
