"""One local Ray for the whole test session, started by whoever needs it first.

One, because a start takes seconds, and because Ray is not made to be started again in a process in which
threads of the first one may still live: that ends, rarely, in a segmentation fault
(https://github.com/ray-project/ray/issues/31145).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_server import cloud_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def ray_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Ray's workers are at home: they take relative paths and plug-ins from there."""
    return tmp_path_factory.mktemp("ray") / "here"


@pytest.fixture(scope="session")
def local_ray(s3_endpoint: str, ray_folder: Path) -> Iterator[None]:
    """A local cluster of two CPUs, whose workers find the test's S3."""
    import ray

    ray_folder.mkdir()
    with pytest.MonkeyPatch.context() as environment:
        environment.chdir(ray_folder)
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("PYTHONPATH", f"{ROOT}:{ray_folder}")
        for name, value in cloud_of(s3_endpoint).items():
            environment.setenv(name, value)
        ray.init(address="local", include_dashboard=False, num_cpus=2, object_store_memory=400_000_000)
    yield
    ray.shutdown()
