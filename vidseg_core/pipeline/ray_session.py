"""Ray for one job: join the cluster that is there, else start a local one and stop it afterwards."""

from __future__ import annotations

import gc
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import ray

from vidseg_core.config.segment import SegmentConfig
from vidseg_core.pipeline import interrupts, local_ray, raylet_words
from vidseg_core.pipeline.local_ray import LocalRay
from vidseg_core.pipeline.worker_watch import in_words

MAX_BRANCHES = 8
"""Keyed branches that one streaming executor drives well; where there is room for more there are `cells`."""
DECODE_CPUS = 1.0
"""What a decode task asks of Ray: more decoders than cores cost more page faults than they hide waits."""
_SHOWN = 400
"""Characters of what Ray says."""


class ClusterError(RuntimeError):
    """The cluster cannot be joined, or cannot do what the configuration asks."""


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """How a run is laid out on a cluster. Nothing here changes a single mask."""

    device: str
    branches: int
    cells: int
    """Executors that the branches are dealt over."""
    decoders_per_branch: int
    gpus_per_worker: float
    cpus: int
    lanes: int


class RayChoice(Protocol):
    """What a verb's configuration says about the Ray to use."""

    @property
    def ray_address(self) -> str | None: ...

    @property
    def object_store_mb(self) -> int | None: ...


@contextmanager
def ray_session(config: RayChoice) -> Iterator[None]:
    """Ray is up inside the block. A Ray that the caller had started is used and left running."""
    with interrupts.heard(), in_words(config, ClusterError):
        if ray.is_initialized():
            yield
            return
        ours = None
        try:
            ours = _connect(config)
            with interrupts.standing_on(ours.stands) if ours else nullcontext():
                yield
        except BaseException as problem:
            _let_go(problem)
            raise
        finally:
            ours.stop() if ours else ray.shutdown()


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


def _connect(config: RayChoice) -> LocalRay | None:
    """Join the cluster that is named, or start a Ray of our own."""
    raylet_words.shorten()
    address = config.ray_address or os.environ.get("RAY_ADDRESS")
    try:
        if not address:
            return LocalRay(config.object_store_mb)
        with local_ray.our_signals():
            ray.init(address=address, **local_ray.QUIET)
    except UnicodeEncodeError:  # Ray is told the command line, and takes UTF-8 only
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


def check_store(shard_bytes: int) -> None:
    """`ClusterError` if a node of the cluster has no room for a shard beside the one before it."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    rooms = [node.get("object_store_memory", 0.0) for node in nodes if node.get("CPU")]
    if rooms and 2 * shard_bytes > min(rooms):
        raise ClusterError(
            f"a node of the Ray cluster has an object store of {min(rooms) / 1e6:.0f} MB, and the decoded "
            f"shards of these videos take {shard_bytes / 1e6:.0f} MB each: give every node "
            f"{4 * shard_bytes / 1e6:.0f} MB (--object_store_mb for a local Ray, --object-store-memory of "
            "ray start), or lower --shard_frames"
        )


def size_up(config: SegmentConfig, segments: int) -> Sizing:
    """Branches and decoders for ``segments`` open segments on the cluster that Ray is connected to."""
    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 1)), resources.get("GPU", 0.0)
    device = _device(config, gpus)
    share = _gpu_share(config, device)
    room = max(1, int(gpus / share)) if share else max(1, cpus // config.threads)
    branches = max(1, min(config.workers or room, -(-segments // config.lanes)))
    decoders = config.decoders or int(cpus / DECODE_CPUS)
    return Sizing(
        device=device,
        branches=branches,
        cells=-(-branches // MAX_BRANCHES),
        decoders_per_branch=max(1, decoders // branches),
        gpus_per_worker=share,
        cpus=cpus,
        lanes=config.lanes,
    )


def _device(config: SegmentConfig, gpus: float) -> str:
    if config.device == "cuda" and gpus <= 0:
        raise ClusterError("--device cuda: the Ray cluster has no GPU (use --device cpu or auto)")
    return "cuda" if config.device == "cuda" or (config.device == "auto" and gpus > 0) else "cpu"


def _gpu_share(config: SegmentConfig, device: str) -> float:
    if device == "cpu":
        return 0.0
    return 1.0 if config.gpus_per_worker is None else config.gpus_per_worker
