"""Promise: what Ray prints goes to a file of its session and not among our lines; nothing of it is lost.

Why: a page of advice a worker that died, and a warning on every start, stood between the lines of progress.
"""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray._private import worker
from ray._private.log import PlainRayHandler
from ray._private.node import Node

from vidseg_core.kit.ray_log import ray_lines_apart


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    node = SimpleNamespace(get_logs_dir_path=lambda: str(tmp_path))
    monkeypatch.setattr(worker, "_global_node", node)
    return tmp_path


def say(text: str) -> None:
    """What Ray says in each of its ways."""
    record = logging.LogRecord("ray.data", logging.WARNING, "x.py", 1, f"logged {text}", (), None)
    PlainRayHandler().handle(record)
    worker.print_to_stdstream(
        {"lines": [f"printed {text}", "advice"], "pid": "raylet", "is_err": False}, ignore_prefix=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn_explicit(f"warned {text}", FutureWarning, ray.__file__, 1)


def test_all_that_ray_says_is_in_the_file_from_before_it_was_up_on(
    session: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ray_lines_apart() as log:
        say("early")
        path = log.open()
        say("later")
    assert Path(path).parent == session
    text = Path(path).read_text(encoding="utf-8")
    for way in ("logged", "printed", "warned"):
        assert text.index(f"{way} early") < text.index("what Ray says") < text.index(f"{way} later")
    assert "(raylet) advice" in text
    assert capsys.readouterr() == ("", "")


NATIVE = """
import os, sys
from types import SimpleNamespace
from ray._private import worker
from vidseg_core.cli.runner import _leave_descriptor_2
from vidseg_core.kit.ray_log import ray_lines_apart

def session(who):
    worker._global_node = SimpleNamespace(get_logs_dir_path=lambda: os.path.join(sys.argv[1], who))
    with ray_lines_apart() as log:
        log.open()
        os.write(2, b"native\\n")
        print(f"{who} itself", file=sys.stderr)
    os.write(2, f"after the {who}\\n".encode())

session("program")
_leave_descriptor_2()
session("command")
os._exit(0)  # there is no Ray to be shut down
"""


def test_native_lines_go_there_in_a_command_and_stay_in_a_program_that_calls_us(tmp_path: Path) -> None:
    for who in ("program", "command"):
        (tmp_path / who).mkdir()
    argv = [sys.executable, "-c", NATIVE, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    said = ["native", "program itself", "after the program", "command itself", "after the command"]
    assert done.stderr.splitlines() == said
    logs = {who: next((tmp_path / who).iterdir()).read_text() for who in ("program", "command")}
    assert logs["command"].endswith("native\n") and "native" not in logs["program"]


def test_others_are_heard_as_before_and_afterwards_all_are(session: Path) -> None:
    ways = PlainRayHandler.emit, worker.print_to_stdstream
    with ray_lines_apart(), pytest.warns(UserWarning, match="ours"):
        warnings.warn("ours", stacklevel=1)
    assert (PlainRayHandler.emit, worker.print_to_stdstream) == ways


def test_the_names_inside_ray_are_those_that_it_uses() -> None:
    assert "print_to_stdstream(" in inspect.getsource(worker.listen_error_messages)
    assert Node.get_logs_dir_path and hasattr(worker, "_global_node")
    handlers = logging.getLogger("ray").handlers
    assert any(isinstance(handler, PlainRayHandler) for handler in handlers)
