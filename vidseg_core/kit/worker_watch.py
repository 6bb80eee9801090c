"""An end, in one sentence, for runs that Ray would keep trying although nothing happens but workers' deaths.

Model: Ray Data tries a task for ever when its worker dies, and what Ray's memory monitor has ended is tried
for ever whoever asked. Verbs bound the latter (`OOM_RETRIES`, set before Ray is imported) for the tasks that
they ask for. The rest (actors, cells, tasks of Ray Data) is watched: while nothing comes out of a run,
`WorkerWatch` counts those that died in the cluster's table of workers.

Invariant: a run that makes progress is never ended, however many workers die beside it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.state import state
from ray.core.generated import common_pb2, gcs_pb2
from ray.exceptions import OutOfMemoryError, WorkerCrashedError

from vidseg_core.kit.explain import died, killed

TASK_TRIES = 10
"""Tries of a task of our own whose worker dies: nodes come and go, a crash comes back."""
QUIET_S = 10.0
"""Without progress for so long, deaths are counted."""
MOST_KILLS = 6
"""Kills by the memory monitor on each node, without progress in between, after which the run ends."""
MOST_CRASHES = 40
"""Deaths of workers of anything else after which it ends; a video that is given up takes four."""
_LOOK_EVERY_S = 2.0
_common: Any = common_pb2  # made at run time
_gcs: Any = gcs_pb2
_MEMORY = _common.WorkerExitType.Value("NODE_OUT_OF_MEMORY")
_CRASH = _common.WorkerExitType.Value("SYSTEM_ERROR")


class ShortOfMemory(RuntimeError):
    """Nothing goes on because workers are killed for memory; the text is Ray's."""


class WorkersDie(RuntimeError):
    """Nothing goes on because workers die; the text is Ray's."""


class WorkerWatch:
    """Raises `ShortOfMemory` or `WorkersDie` when nothing happens but that."""

    progress = 0
    """Counted by whoever takes what comes out, for all watches of this process."""

    def __init__(self) -> None:
        self._progress, self._since, self._looked = -1, 0.0, 0.0
        self._known: set[str] | None = None

    def look(self) -> None:
        """Now and then compare the deaths with those of the first look since something came out."""
        now = time.monotonic()
        if self._progress != WorkerWatch.progress:
            self._progress, self._since, self._known = WorkerWatch.progress, now, None
        if now - self._since < QUIET_S or now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        kills, crashes = deaths(_MEMORY), deaths(_CRASH)
        if self._known is None:
            self._known = {*kills, *crashes}
        for found, most, error in ((kills, MOST_KILLS, ShortOfMemory), (crashes, MOST_CRASHES, WorkersDie)):
            new = [why for worker, why in found.items() if worker not in self._known]
            if len(new) >= most * max(1, sum(node["Alive"] for node in ray.nodes())):
                raise error(new[-1])


def deaths(kind: int) -> dict[str, str]:
    """Workers of this job that ended in a way, by id, with what Ray says about each."""
    job = ray.get_runtime_context().get_job_id()
    rows = map(_gcs.WorkerTableData.FromString, state._connect_and_get_accessor().get_worker_table())
    return {
        row.worker_address.worker_id.hex(): row.exit_detail
        for row in rows
        if not row.is_alive and row.exit_type == kind and row.job_id.hex() in (job, "")
    }


@contextmanager
def in_words(config: object, error: type[Exception]) -> Iterator[None]:
    """What Ray says, in a page, when it gives a task up is raised as an `error` of one sentence."""
    try:
        yield
    except Exception as problem:
        if (text := _words(problem, config)) is None:
            raise
        raise error(text) from problem


def _words(problem: BaseException | None, config: object) -> str | None:
    seen: set[int] = set()
    while problem is not None and id(problem) not in seen:
        seen.add(id(problem))
        if isinstance(problem, OutOfMemoryError | ShortOfMemory):
            return killed(str(problem), config)
        if isinstance(problem, WorkerCrashedError | WorkersDie):
            return died()
        problem = getattr(problem, "cause", None) or problem.__cause__
    return None
