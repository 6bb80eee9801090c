"""The session's Ray for the tests of training on it: whoever needs one first starts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def training_ray() -> Iterator[None]:
    """A local cluster of two CPUs, unless other tests have started one."""
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(address="local", include_dashboard=False, num_cpus=2, object_store_memory=400_000_000)
    yield
    if started:
        ray.shutdown()
