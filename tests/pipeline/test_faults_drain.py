"""Promise: a drain whose marker cannot be written is reported and tried again; it never ends in silence."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from tests.s3_faults import faulty
from vidseg_core.pipeline import drain as drain_module
from vidseg_core.pipeline.drain import Drain
from vidseg_core.store.local_store import LocalStore
from vidseg_core.store.objects import open_store


def wait_for(true: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_marker_that_cannot_be_written_is_told_once_and_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "WRITE_EVERY_S", 0.05)
    (tmp_path / "out").write_text("a file where the output should be")
    told: list[str] = []
    drain = Drain(LocalStore(str(tmp_path / "out")), told.append)
    mark = drain.mark()
    with drain.on_sigterm():
        signal.raise_signal(signal.SIGTERM)
        wait_for(lambda: told)
        time.sleep(0.2)
        assert drain.requested and len(told) == 1
        assert "cannot be asked to end" in told[0] and "is a file where a directory is needed" in told[0]
        (tmp_path / "out").unlink()
        wait_for(lambda: list(tmp_path.glob("out/_state/drain-*")))
        assert mark.is_set()
    assert not list(tmp_path.glob("out/_state/drain-*"))


def test_a_run_that_ends_first_does_not_wait_for_its_marker(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the output should be")
    drain = Drain(LocalStore(str(tmp_path / "out")))
    drain.request()
    drain.close()
    assert not any(thread is drain._writer for thread in threading.enumerate())


def test_a_marker_survives_a_stumbling_s3(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty(s3.endpoint) as service:
        monkeypatch.setenv("AWS_ENDPOINT_URL", service.endpoint)
        service.script = [("^PUT .*drain-", "503"), ("^PUT .*drain-", "reset")]
        told: list[str] = []
        drain = Drain(open_store(f"{s3.url}/out"), told.append)
        drain.request()
        wait_for(drain.mark().is_set)
        drain.close()
        assert not told and not service.script
        assert not list(open_store(f"{s3.url}/out").list("_state/"))
