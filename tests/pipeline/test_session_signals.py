"""Promise: SIGTERM during any job on Ray is Ctrl-C (one sentence, exit code 1), not Ray's traceback; outside
of the job it is what it was before.
"""

from __future__ import annotations

import os
import signal
import time
import weakref

import pytest

from vidseg_core.pipeline import ray_session
from vidseg_core.pipeline.ray_session import _sigterm_interrupts


@pytest.mark.parametrize("interrupt", [signal.default_int_handler, signal.SIG_IGN])
def test_sigterm_is_ctrl_c_inside_and_what_it_was_before_outside(interrupt: object) -> None:
    before, ours = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, interrupt)  # type: ignore[arg-type]
    try:
        with pytest.raises(KeyboardInterrupt), _sigterm_interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, ours)
    assert signal.getsignal(signal.SIGTERM) == before


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
    monkeypatch.setattr(ray_session, "_connect", lambda config: None)
    monkeypatch.setattr(ray_session.ray, "shutdown", lambda: there.append(held[0]()))
    with pytest.raises(KeyboardInterrupt), ray_session.ray_session(None):  # type: ignore[arg-type]
        job()
    assert there == [None]
