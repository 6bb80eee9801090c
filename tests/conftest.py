"""Shared by all tests: deterministic property tests, an environment that cannot reach a real cloud, and an
end that the verdict decides."""

from __future__ import annotations

import atexit
import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.dealing", "tests.one_ray", "tests.s3_server", "tests.web", "tests.clouds"]

# Read when torch is imported. Jobs run nets on one thread; on more, a pair's flow may depend on its batch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Begun in the background of a shell that ignores Ctrl-C there; tests send it to themselves and to jobs.
    signal.signal(signal.SIGINT, signal.default_int_handler)

VERDICT = pytest.StashKey[int]()

settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=50,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("all", parent=settings.get_profile("ci"), max_examples=400)
settings.register_profile("deep", parent=settings.get_profile("ci"), derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def no_real_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials, profiles and clusters of the person who runs the tests play no part in them."""
    for name in (
        "AWS_PROFILE",
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "RAY_ADDRESS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[VERDICT] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave once all is said, with what was said, before the native parts of a dozen libraries come down.

    Ray ends its own workers like this, for the same reason: a thread of one that still runs while another's
    statics go is a segmentation fault, once in many runs. That our jobs end well is tested on jobs, in
    processes of their own.
    """
    verdict = config.stash.get(VERDICT, None)
    if verdict is None:
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(verdict)
