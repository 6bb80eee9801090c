"""On which device a cluster does the work of a verb."""

from __future__ import annotations

from vidseg_core.kit.ray_session import ClusterError


def cluster_device(asked: str, gpus: float, workers: int = 1) -> str:
    """``cuda`` or ``cpu``, from ``--device`` and the GPUs of the cluster; each of `workers` needs one.

    `auto` is ``cuda`` where there are enough; `ClusterError` if ``cuda`` is asked for and there are not.
    """
    enough = gpus >= max(1, workers)
    if asked == "cuda" and not enough:
        there = "no GPU" if not gpus else f"{gpus:g} GPU(s) for {workers} worker(s)"
        raise ClusterError(f"--device cuda: the Ray cluster has {there} (use --device cpu or auto)")
    return "cuda" if asked != "cpu" and enough else "cpu"
