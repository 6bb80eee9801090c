"""One local Ray for all tests that need a living one: starting it takes seconds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLOUD = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def cloud(endpoint: str) -> dict[str, str]:
    """The environment in which the S3 of the tests is found."""
    return CLOUD | {"AWS_ENDPOINT_URL": endpoint}


@pytest.fixture(scope="session")
def ray_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where workers of the Ray are, and look for plug-ins: the folder in which it is started."""
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="session")
def local_ray(s3_endpoint: str, ray_folder: Path) -> Iterator[None]:
    """A local cluster of two CPUs whose workers find the test's S3."""
    import ray

    with pytest.MonkeyPatch.context() as environment:
        for name, value in cloud(s3_endpoint).items():
            environment.setenv(name, value)
        environment.setenv("PYTHONPATH", f"{ROOT}:{ray_folder}")
        environment.chdir(ray_folder)
        ray.init(address="local", include_dashboard=False, num_cpus=2, object_store_memory=400_000_000)
    yield
    ray.shutdown()


@pytest.fixture
def beside_ray(local_ray: None) -> dict[str, str]:
    """The environment of a process that joins this Ray: one of its own would be another start."""
    return joining()


def joining(**workers: str) -> dict[str, str]:
    """`beside_ray` of a job whose workers have these variables besides, as Ray's job server hands them on."""
    import ray

    job = (
        {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {"env_vars": workers}})} if workers else {}
    )
    address = ray.get_runtime_context().gcs_address
    return {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": address, **workers, **job}
