"""A Ray that one command starts for itself, kept apart from what surrounds the command.

Invariant: its processes are in sessions of their own, so a signal to the command's process group (Ctrl-C in
a terminal, `timeout`, a batch system) reaches the command alone, which ends them. If the command dies in
another way, the kernel kills the daemons, a shell their agents, and workers leave with their raylet.
Workers are this very Python in this folder: under `uv run` Ray would start each through uv, and pack the
folder first.

Ray has no options for that; the names inside Ray that are used here are pinned by `test_local_ray.py`.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray._private import ray_constants, services
from ray._private import utils as ray_utils

from vidseg_core.config.run_options import STORE_MB

QUIET: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
_NEEDED = ("gcs_server", "raylet")
"""Daemons without which nothing goes on."""


class LocalRay:
    """A Ray that was started here, and that this process is connected to."""

    def __init__(self, store_mb: int | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to nobody
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # that a token is in use
        self._daemons: list[subprocess.Popen[bytes]] = []
        with (
            our_signals(),
            swapped(ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", False),
            swapped(services, "ConsolePopen", partial(self._start_apart, services.ConsolePopen)),
        ):
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=os.cpu_count(),
                object_store_memory=(store_mb or STORE_MB) * 10**6,
                **QUIET,
            )
        self._reaper = [_reaper(daemon) for daemon in self._daemons if _name(daemon) == "raylet"]

    def _start_apart(self, plain: Any, *command: Any, **options: Any) -> subprocess.Popen[bytes]:
        self._daemons.append(plain(*command, start_new_session=True, **options))
        return self._daemons[-1]

    def stands(self) -> bool:
        """No daemon was ended by a signal (then all were sent it), and those that are needed are there."""
        codes = [(daemon.poll(), _name(daemon)) for daemon in self._daemons]
        return all(code is None or (code >= 0 and name not in _NEEDED) for code, name in codes)

    def stop(self) -> None:
        """End it."""
        ray.shutdown()
        for reaper in self._reaper:
            reaper.communicate()


def _name(daemon: subprocess.Popen[bytes]) -> str:
    return os.path.basename(str(daemon.args[0]))  # type: ignore[index]


def _reaper(raylet: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """A shell that waits for the end of this process, however it comes, and kills the raylet's process group.

    Its agents are in there, and would notice its death a minute later.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read line; kill -s KILL -- "-$0"', str(raylet.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextmanager
def our_signals() -> Iterator[None]:
    """Inside, `ray.init` leaves the handler of SIGTERM alone; its own end the process without a word, or with
    many."""
    with (
        swapped(ray_utils, "set_sigterm_handler", lambda handler: None),
        swapped(ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", True),
    ):
        yield


@contextmanager
def swapped(where: Any, name: str, value: object) -> Iterator[None]:
    """Inside, an attribute has another value."""
    before = getattr(where, name)
    setattr(where, name, value)
    try:
        yield
    finally:
        setattr(where, name, before)
