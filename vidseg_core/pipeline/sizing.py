"""How a run is laid out on the cluster that Ray is connected to: branches, decoders, cells, device."""

from __future__ import annotations

from dataclasses import dataclass

import ray

from vidseg_core.config.segment import SegmentConfig
from vidseg_core.kit.device import cluster_device
from vidseg_core.kit.ray_session import ClusterError

MAX_BRANCHES = 8
"""Keyed branches that one streaming executor drives well; where there is room for more there are `cells`."""
DECODE_CPUS = 1.0
"""What a decode task asks of Ray: more decoders than cores cost more page faults than they hide waits."""


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
    device = cluster_device(config.device, gpus)
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


def _gpu_share(config: SegmentConfig, device: str) -> float:
    if device == "cpu":
        return 0.0
    return 1.0 if config.gpus_per_worker is None else config.gpus_per_worker
