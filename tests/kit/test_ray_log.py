"""Promise: what Ray prints goes to a file of its session and not among our lines; nothing of it is lost.

Why: a page of advice a worker that died, and a warning on every start, stood between the lines of progress.
"""

from __future__ import annotations

import inspect
import logging
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
