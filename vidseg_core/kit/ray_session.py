"""Ray for one job: join the cluster that is there, else start a local one and stop it afterwards."""

from __future__ import annotations

import gc
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol

import ray

from vidseg_core.config.schema import redact
from vidseg_core.kit import interrupts, local_ray
from vidseg_core.kit.local_ray import LocalRay
from vidseg_core.kit.progress import Reporter
from vidseg_core.kit.ray_log import RayLog, ray_lines_apart
from vidseg_core.kit.worker_watch import in_words

_SHOWN = 400
"""Characters of what Ray says."""


class ClusterError(RuntimeError):
    """The cluster cannot be joined, or cannot do what the configuration asks."""

    exit_code = 1


class RayChoice(Protocol):
    """What a verb's configuration says about the Ray to use."""

    @property
    def ray_address(self) -> str | None: ...

    @property
    def object_store_mb(self) -> int | None: ...


@contextmanager
def ray_session(config: RayChoice, report: Reporter | None = None) -> Iterator[None]:
    """Ray is up inside the block. A Ray that the caller had started is used and left running."""
    with interrupts.heard(), in_words(config, ClusterError):
        if ray.is_initialized():
            yield
            return
        with ray_lines_apart() as log:
            ours = None
            try:
                ours = _started(config, report or Reporter(), log)
                with interrupts.standing_on(ours.stands) if ours else nullcontext():
                    yield
            except BaseException as problem:
                _let_go(problem)
                raise
            finally:
                ours.stop() if ours else ray.shutdown()


def _started(config: RayChoice, report: Reporter, log: RayLog) -> LocalRay | None:
    """Ray is up, and people know where its lines are."""
    address = _address(config)
    name = f"joining the Ray cluster at {redact(address)}" if address else "starting Ray"
    with report.phase(name, at_once=True):
        ours = _connect(config)
    path = log.open()
    report.say(f"Ray is up; its own lines go to {path}", ray_log=path)
    return ours


def _let_go(problem: BaseException) -> None:
    """Drop what the frames of a traceback hold, while Ray is up.

    An executor of Ray Data ends when its iterator is collected; after `ray.shutdown` that would start another
    Ray (it asks the cluster for its resources).
    """
    waiting: list[BaseException | None] = [problem]
    seen: set[int] = set()
    while waiting:
        error = waiting.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            traceback.clear_frames(error.__traceback__)
            waiting += [error.__cause__, error.__context__]
    gc.collect()


def _address(config: RayChoice) -> str | None:
    return config.ray_address or os.environ.get("RAY_ADDRESS")


def _connect(config: RayChoice) -> LocalRay | None:
    """Join the cluster that is named, or start a Ray of our own."""
    address = _address(config)
    try:
        if not address:
            return LocalRay(config.object_store_mb)
        with local_ray.our_signals():
            ray.init(address=address, **local_ray.QUIET)
    except UnicodeEncodeError:  # Ray is given the command line, and takes UTF-8 only
        raise
    except Exception as problem:
        why = f"a local Ray does not start (is the machine overloaded?): {problem}"
        raise ClusterError(_why_not(address, problem) if address else why) from problem
    return None


def _why_not(address: str, problem: Exception) -> str:
    """One sentence for a cluster that cannot be joined."""
    text = " ".join(str(problem).split())
    versions = re.findall(r"Ray: (\S+) Python: (\S+)", text)
    if len(versions) != 2:
        return f"cannot join the Ray cluster at {address}: {text[:_SHOWN]}"
    (there, its_python), (here, our_python) = versions
    return (
        f"cannot join the Ray cluster at {address}: it runs Ray {there} on Python {its_python}, this machine "
        f"Ray {here} on Python {our_python}; every machine needs the same (tested: constraints.txt)"
    )
