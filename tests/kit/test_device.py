"""Promise: every verb takes a GPU of the cluster by one rule, and says in one sentence that there is none."""

from __future__ import annotations

import pytest

from vidseg_core.kit.device import cluster_device
from vidseg_core.kit.ray_session import ClusterError


@pytest.mark.parametrize(
    ("asked", "gpus", "workers", "device"),
    [
        ("auto", 0.0, 1, "cpu"),
        ("auto", 1.0, 1, "cuda"),
        ("auto", 1.0, 2, "cpu"),
        ("cpu", 4.0, 1, "cpu"),
        ("cuda", 2.0, 2, "cuda"),
    ],
)
def test_a_gpu_is_taken_where_there_are_enough(asked: str, gpus: float, workers: int, device: str) -> None:
    assert cluster_device(asked, gpus, workers) == device


@pytest.mark.parametrize(("gpus", "says"), [(0.0, "has no GPU"), (1.0, r"has 1 GPU\(s\) for 2 worker\(s\)")])
def test_a_gpu_that_is_asked_for_and_not_there_is_named(gpus: float, says: str) -> None:
    with pytest.raises(ClusterError, match=f"--device cuda: the Ray cluster {says}"):
        cluster_device("cuda", gpus, 2)
