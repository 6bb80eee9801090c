"""Ctrl-C and SIGTERM, from the first line of a command to its last.

Model: the first signal raises `KeyboardInterrupt` in the main thread; where a run can drain, the first
SIGTERM asks it to instead. Terminals, `timeout` and `uv run` send a signal two or three times within moments:
what comes within `AGAIN_S` is the same request. One that comes later raises, or ends the process at once if
that has been tried: all that matters is in the output already.
Invariant: a process that was asked to end does, also when what it stands on (a Ray of its own) was ended with
it, and when nobody hears the exception.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

AGAIN_S = 2.0
"""Signals within so many seconds are one request."""
CLEANUP_S = 30.0
"""A process that has not ended so long after its `KeyboardInterrupt` is ended as it stands."""
_LOOK_EVERY_S = 0.5


class _Ear:
    """What was asked so far, and what is to be done about it."""

    def __init__(self, last_words: Callable[[], None]) -> None:
        self._last_words = last_words
        self.drain: Callable[[], None] | None = None
        self.stands: Callable[[], bool] = lambda: True
        self._heard: float | None = None
        self._drains = False
        self._raised: float | None = None
        self.closed = threading.Event()

    @property
    def ends(self) -> bool:
        return self._raised is not None

    def hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._heard is not None and now - self._heard < AGAIN_S:
            return
        if self._heard is None:
            threading.Thread(target=self._watch, daemon=True).start()
        self._heard = now
        if self._raised is not None:
            self.end_now()
        if number == signal.SIGTERM and self.drain is not None and not self._drains:
            self._drains = True
            self.drain()
            return
        self._raised = now
        raise KeyboardInterrupt

    def _watch(self) -> None:
        while not self.closed.wait(_LOOK_EVERY_S):
            late = self._raised is not None and time.monotonic() - self._raised > CLEANUP_S
            if late or not self.stands():
                self.end_now()

    def end_now(self) -> None:
        """The last words, then the end of this process and of all that it has started."""
        self._last_words()
        sys.stderr.flush()
        import psutil

        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                process.kill()
        os._exit(1)


_ear: _Ear | None = None


def _no_words() -> None:
    print("interrupted", file=sys.stderr)


@contextmanager
def heard(last_words: Callable[[], None] = _no_words) -> Iterator[None]:
    """SIGINT and SIGTERM are heard inside (in the main thread); the outermost block is the one that counts.

    `last_words` is called when the process is ended as it stands. A SIGINT that is ignored (a job in the
    background of a shell) stays ignored.
    """
    global _ear
    if _ear is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _ear = ear = _Ear(last_words)
    before = {number: signal.getsignal(number) for number in _heeded()}
    for number in before:
        signal.signal(number, ear.hear)
    try:
        yield
    finally:
        _ear = None
        ear.closed.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _heeded() -> list[signal.Signals]:
    ignores = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return [signal.SIGTERM] if ignores else [signal.SIGTERM, signal.SIGINT]


def end_with(code: int) -> None:
    """The work is done and only the end of the process is left: a signal ends it with this exit code."""

    def end(number: int, frame: FrameType | None) -> None:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)

    for number in _heeded():
        signal.signal(number, end)


@contextmanager
def sigterm_drains(drain: Callable[[], None]) -> Iterator[None]:
    """Inside, the first SIGTERM calls `drain` and raises nothing."""
    with heard():
        ear = _ear_here()
        if ear is not None:
            ear.drain = drain
        try:
            yield
        finally:
            if ear is not None:
                ear.drain = None


@contextmanager
def standing_on(stands: Callable[[], bool]) -> Iterator[None]:
    """Inside, a process that was asked to end does so at once when `stands` is no longer true."""
    ear = _ear_here()
    if ear is None:
        yield
        return
    ear.stands = stands
    try:
        yield
    finally:
        ear.stands = lambda: True


def asked_to_end() -> bool:
    """Whether the `KeyboardInterrupt` of a signal is under way; what else is raised then comes of it."""
    return _ear is not None and _ear.ends


def _ear_here() -> _Ear | None:
    return _ear if threading.current_thread() is threading.main_thread() else None
