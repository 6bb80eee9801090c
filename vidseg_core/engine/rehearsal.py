"""Somebody else's code, run first in a copy of this process, which it may end.

A net that crashes natively, or calls `os._exit`, would take a driver with it, and nobody would say why.
Invariant: nothing that the copy does is seen here, except whether it lived.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

import torch

PATIENCE_S = 30.0
"""A copy that has not ended by then counts as alive: libraries with threads of their own may hang in it."""


def how_it_ends(work: Callable[[], object]) -> str:
    """How a forked copy of this process that runs `work` is ended by it; empty if it lives, raised or not."""
    sys.stdout.flush()
    sys.stderr.flush()
    answers, answer = os.pipe()
    child = os.fork()
    if child == 0:
        _run(work, answer)
    os.close(answer)
    has_ended = False
    try:
        has_ended = bool(select.select([answers], [], [], PATIENCE_S)[0])
        lives = not has_ended or bool(os.read(answers, 1))
    finally:
        os.close(answers)
        if not has_ended:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if lives:
        return ""
    code = os.waitstatus_to_exitcode(status)
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _descriptors() -> set[int]:
    """Where prints go, native ones and Python's."""
    found = {1, 2}
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # none, or no file
            found.add(stream.fileno())
    return found


def _run(work: Callable[[], object], answer: int) -> None:
    """In the copy: silent, with one thread (those of the original are not here), and never back."""
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        for descriptor in _descriptors():
            os.dup2(silent, descriptor)
        faulthandler.disable()
        torch.set_num_threads(1)
        work()
    except BaseException:  # whatever it is, it is raised again in the original
        pass
    finally:
        os.write(answer, b".")
        os._exit(0)
