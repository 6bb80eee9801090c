"""Promise: what a failing job held is let go of while Ray is up; Ctrl-C does not hang on it."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from vidseg_core.kit import ray_session

NO_CLUSTER: Any = SimpleNamespace(ray_address=None, object_store_mb=None)


def test_what_a_failing_job_held_is_gone_before_ray_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that is collected after `ray.shutdown` starts another Ray, and a Ctrl-C hangs."""

    class Executor:
        pass

    held: list[weakref.ref[Executor]] = []

    def job() -> None:
        executor = Executor()
        held.append(weakref.ref(executor))
        try:
            raise KeyError
        except KeyError:
            raise KeyboardInterrupt from None

    there = []
    monkeypatch.setattr(ray_session.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_session, "_started", lambda *_: None)
    monkeypatch.setattr(ray_session.ray, "shutdown", lambda: there.append(held[0]()))
    with pytest.raises(KeyboardInterrupt), ray_session.ray_session(NO_CLUSTER):
        job()
    assert there == [None]
