"""Promise: a cluster that cannot do what is asked is named in one sentence that says what to do: no GPU, too
small an object store, another version of Ray, nobody there. Nothing is lost by it; the exit code is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private.utils import check_version_info

from tests.pipeline.conftest import small_config
from vidseg_core.kit import ray_session
from vidseg_core.kit.ray_session import ClusterError
from vidseg_core.pipeline import sizing
from vidseg_core.pipeline.sizing import check_store


def refusal_of_rays_own(metadata: dict[str, str]) -> Exception:
    """What `ray.init` raises in a driver when the cluster was started with these versions."""
    with pytest.raises(RuntimeError) as caught:
        check_version_info(metadata, "node 10.0.0.7:6379")
    return caught.value


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"ray_version": "2.9.3", "python_version": "3.9.18"}, "it runs Ray 2.9.3 on Python 3.9.18"),
        ({"ray_version": ray.__version__, "python_version": "3.9.18"}, "on Python 3.9.18"),
    ],
)
def test_another_version_is_told_with_both_versions(
    metadata: dict[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = refusal_of_rays_own(metadata)

    def init(**_: Any) -> None:
        raise refusal

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ClusterError) as caught:
        ray_session._connect(small_config("in", tmp_path, ray_address="10.0.0.7:6379"))
    text = str(caught.value)
    assert text.startswith("cannot join the Ray cluster at 10.0.0.7:6379: it runs Ray") and told in text
    assert f"this machine Ray {ray.__version__}" in text and "constraints.txt" in text and "\n" not in text


def test_what_else_ray_says_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("no GCS there,\n  or\nit does not answer. " + "And so on. " * 200)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ClusterError, match="at head:6379: no GCS there, or it does not answer") as caught:
        ray_session._connect(small_config("in", tmp_path, ray_address="head:6379"))
    assert len(str(caught.value)) < 500


@pytest.mark.ray
def test_a_cluster_without_gpus_says_so_and_the_run_can_go_on(
    corpus: Path, tmp_path: Path, run_job: Callable[..., tuple[int, str]]
) -> None:
    code, text = run_job(corpus, tmp_path / "out", device="cuda", segmenter="plain")
    assert code == 1 and "--device cuda: the Ray cluster has no GPU (use --device cpu or auto)" in text
    assert "same command goes on" in text and "Traceback" not in text
    assert not list((tmp_path / "out").glob("frames/*/*"))


@pytest.mark.ray
def test_an_object_store_too_small_for_a_shard_is_told_with_the_size_that_suits(local_ray: None) -> None:
    whole = int(ray.cluster_resources()["object_store_memory"])
    check_store(whole // 4)
    with pytest.raises(ClusterError, match=r"object store of \d+ MB.*take 300 MB.*1200 MB") as caught:
        check_store(300_000_000)
    assert "--object_store_mb" in str(caught.value) and "--shard_frames" in str(caught.value)


def test_nodes_without_cpus_need_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that only coordinates may be small."""
    head = {"Alive": True, "Resources": {"object_store_memory": 80e6}}
    gone = {"Alive": False, "Resources": {"object_store_memory": 1e6, "CPU": 4.0}}
    worker = {"Alive": True, "Resources": {"object_store_memory": 2e9, "CPU": 4.0}}
    monkeypatch.setattr(sizing, "ray", SimpleNamespace(nodes=lambda: [head, gone, worker]))
    check_store(100_000_000)
    with pytest.raises(ClusterError):
        check_store(1_500_000_000)
