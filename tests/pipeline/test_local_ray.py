"""Promise: a Ray that a command starts is out of reach of the signals that the command's process group gets,
runs this very Python, also under `uv run`, and dies with the command.

SIGTERM from `timeout` ended raylet and workers before the drain. Under `uv run` each worker was started
through uv; the folder was packed first, where a film was "too large", and a project elsewhere failed.

The names inside Ray that `local_ray` uses are tried here on a real one.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]

DRIVER = """
import json, os, signal, sys
from types import SimpleNamespace
import psutil, ray
from vidseg_core.kit.ray_session import ray_session

def look():
    return {"argv": sys.orig_argv, "folder": os.getcwd()}

heeds = lambda: [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
with ray_session(SimpleNamespace(ray_address=None, object_store_mb=100)):
    seen = {"worker": ray.get(ray.remote(look).remote()), "here": os.getpid()}
    handlers = [getattr(handler, "__qualname__", "") for handler in heeds()]
    all_of_it = psutil.Process().children(recursive=True)
    groups = [(process.name(), os.getpgid(process.pid)) for process in all_of_it]
    seen |= {"handlers": handlers, "groups": groups, "processes": [process.pid for process in all_of_it]}
    print(json.dumps(seen), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a driver below a process called `uv run` sees; it waits until it is killed.

    The folder holds a project and a film that is too large to be packed; the project that uv runs lies
    elsewhere. Ray looks for `uv run` in the command lines of the processes above it.
    """
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").write_text("[project]\nname = 'films'\nversion = '1'\n")
    with (folder / "film.mp4").open("wb") as film:
        film.truncate(600 * 2**20)
    (folder / "run").write_text(f'"{sys.executable}" driver.py\nexit $?\n')
    (folder / "driver.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{DRIVER}")
    uv = subprocess.Popen(
        ["uv", "run", "--project", "/elsewhere", "python", "driver.py"],
        executable="/bin/sh",
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert uv.stdout is not None
    line = uv.stdout.readline()
    assert line, "the driver has failed"
    yield json.loads(line) | {"folder": str(folder), "group": uv.pid}
    uv.kill()
    uv.communicate()


def test_workers_are_this_python_in_this_folder(seen: dict[str, Any]) -> None:
    assert seen["worker"]["argv"][0] == sys.executable
    assert seen["worker"]["folder"] == seen["folder"]


def test_no_process_of_it_is_in_the_drivers_group(seen: dict[str, Any]) -> None:
    names = {name for name, _ in seen["groups"]}
    assert {"gcs_server", "raylet", "ray::IDLE"} <= names
    assert seen["group"] not in {group for _, group in seen["groups"]}


def test_signals_are_heard_by_us(seen: dict[str, Any]) -> None:
    assert seen["handlers"] == ["_Ear.hear"] * 2


def test_nothing_stays_when_the_driver_is_killed(seen: dict[str, Any]) -> None:
    psutil.Process(seen["here"]).send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while left := [process for process in seen["processes"] if alive(process)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
