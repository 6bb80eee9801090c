"""Ctrl-C and SIGTERM, from the first line of a command to its last.

Model: the first signal raises `KeyboardInterrupt` in the main thread; where a run can drain, the first
SIGTERM asks it to instead. Terminals, `timeout` and `uv run` send a signal two or three times within moments:
what comes within `AGAIN_S` is the same request. One that comes later raises, or ends the process at once if
that has been tried: all that matters is in the output already.
Invariant: a process that was asked to end does, also when what it stands on (a Ray of its own) was ended with
it, and when the exception is lost on its way: that is raised again, and after `CLEANUP_S` it is over.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

AGAIN_S = 2.0
"""Signals within so many seconds are one request."""
CLEANUP_S = 30.0
"""A process that has not ended so long after its `KeyboardInterrupt` is ended as it stands."""
_LOOK_EVERY_S = 0.5


class Asked(KeyboardInterrupt):
    """What a signal raises."""


class _Ear:
    """What was asked so far, and what is to be done about it."""

    def __init__(self, last_words: Callable[[], None]) -> None:
        self._last_words = last_words
        self.drain: Callable[[], None] | None = None
        self.drained_by = {signal.SIGTERM}
        self.stands: Callable[[], bool] = lambda: True
        self.last_act: Callable[[], None] = lambda: None
        self._busy = False
        self._heard: float | None = None
        self._drains = False
        self._raised: float | None = None
        self._asked: weakref.ref[Asked] | None = None
        self._swallowed = False
        self.closed = threading.Event()

    @property
    def ends(self) -> bool:
        return self._raised is not None

    def hear(self, number: int, frame: FrameType | None) -> None:
        if self._busy:  # a second one in the middle of this
            return
        self._busy = True
        try:
            self._take(number)
        finally:
            self._busy = False

    def _take(self, number: int) -> None:
        if self._swallowed:
            self._swallowed = False
            raise self._new()
        now = time.monotonic()
        if self._heard is not None and now - self._heard < AGAIN_S:
            return
        if self._heard is None:
            threading.Thread(target=self._watch, daemon=True).start()
        self._heard = now
        if self._raised is not None:
            self.end_now()
        if number in self.drained_by and self.drain is not None and not self._drains:
            self._drains = True
            self.drain()
            return
        self._raised = now
        raise self._new()

    def _new(self) -> Asked:
        asked = Asked()
        self._asked = weakref.ref(asked)
        return asked

    def _watch(self) -> None:
        was_gone = False
        while not self.closed.wait(_LOOK_EVERY_S):
            late = self._raised is not None and time.monotonic() - self._raised > CLEANUP_S
            if late or not self.stands():
                self.end_now()
            gone = self._asked is not None and self._asked() is None
            if gone and was_gone:  # a callback from C may have swallowed it
                self._swallowed, gone = True, False
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            was_gone = gone

    def end_now(self) -> None:
        """The last words, then the end of this process and of all that it has started."""
        self._last_words()
        sys.stderr.flush()
        import psutil

        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                process.kill()
        self.last_act()
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
    tell = sys.unraisablehook
    sys.unraisablehook = lambda found: None if found.exc_type is Asked else tell(found)
    try:
        yield
    finally:
        _ear = None
        ear.closed.set()
        sys.unraisablehook = tell
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
def drains(drain: Callable[[], None], *, ctrl_c: bool = False) -> Iterator[None]:
    """Inside, the first SIGTERM (with `ctrl_c` the first SIGINT, too) calls `drain` and raises nothing."""
    with heard():
        ear = _ear_here()
        if ear is not None:
            ear.drain = drain
            ear.drained_by = {signal.SIGTERM, signal.SIGINT} if ctrl_c else {signal.SIGTERM}
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


def before_an_end(act: Callable[[], None]) -> None:
    """Whatever ends this process as it stands calls `act` first."""
    if _ear is not None:
        _ear.last_act = act


def asked_to_end() -> bool:
    """Whether the `KeyboardInterrupt` of a signal is under way; what else is raised then comes of it."""
    return _ear is not None and _ear.ends


def _ear_here() -> _Ear | None:
    return _ear if threading.current_thread() is threading.main_thread() else None
