"""A command whose work is done in a child process, which another replaces when it dies.

Model: this process stays small (no torch, no Ray). It forks before anything heavy is imported; the child does
the work and says over a pipe when it has begun what can be gone on with (`Child.begin`), when it gets on
(`Child.gets_on`), and when it ends by itself. One that ends without that word has died: native code, or a
SIGKILL, which is taken for the kernel's when memory runs out. If it had begun, the next child goes on from
what is committed and knows who died before it (`pipeline.deaths` judges by that); if not, or if it ended by
itself, its end is the command's.
Invariant: a signal reaches the child once or twice within moments (which is one request, see `interrupts`),
nobody who was asked to end is replaced, one that does not is killed, and no child outlives this process.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from secrets import token_hex
from types import FrameType
from typing import Any, NoReturn

from vidseg_core.kit.interrupts import AGAIN_S, CLEANUP_S, before_an_end

MOST_DEATHS = 40
"""So many children in a row may die without getting on; a video that is given up takes three or four."""
_BEGUN, _GETS_ON, _ENDS = range(3)
GRACE_S = 5.0
"""A child that should have ended is given so much longer."""
_LOOK_EVERY_S = 0.5
_PR_SET_PDEATHSIG = 1
_HEEDED = (signal.SIGINT, signal.SIGTERM)


class Child:
    """The process that does the work: what it says to its parent, and what it knows of those before it (a
    `deaths.Process`)."""

    def __init__(self, family: str, dead: Mapping[str, int], words: int) -> None:
        self.name = f"{family}_{len(dead)}"
        self._dead, self._words = dead, words

    @property
    def replaces_another(self) -> bool:
        """Whether one before it died."""
        return bool(self._dead)

    def fate_of(self, name: str) -> Any:
        """What became of the process of that name."""
        from vidseg_core.pipeline.deaths import Fate

        if name not in self._dead:
            return Fate.UNKNOWN
        return Fate.NO_MEMORY if self._dead[name] == -signal.SIGKILL else Fate.CRASHED

    def begin(self) -> None:
        """From now on another can go on where this one dies."""
        os.write(self._words, bytes([_BEGUN]))

    def gets_on(self) -> None:
        """Something is committed."""
        os.write(self._words, bytes([_GETS_ON]))

    def end(self, code: int) -> NoReturn:
        """The end of this process, wanted by itself."""
        if not _flushed():
            code = code or 1
        self.says_that_it_ends()
        os._exit(code)

    def says_that_it_ends(self) -> None:
        """Whatever comes now, this process was not killed."""
        os.write(self._words, bytes([_ENDS]))


def supervised(
    work: Callable[[Child], int], say: Callable[[str], None], interrupted: Callable[[], None]
) -> int:
    """The exit code of ``work``, done in one child after another.

    ``say`` hears why a child is replaced, or why none is; ``interrupted`` is called if one that was asked to
    end dies without a word.
    """
    family, barren = f"local{token_hex(6)}", 0
    dead: dict[str, int] = {}
    with _Signals() as signals:
        while True:
            heard, code = _one_child(family, dead, work, signals)
            if _ENDS in heard:
                return code
            if signals.asked:
                interrupted()
                return 1
            barren = 1 if _GETS_ON in heard else barren + 1
            died = f"the process that does the work died ({_how(code)})"
            if _BEGUN not in heard:
                say(f"failed: {died}; what is committed stays")
                return 1
            if barren >= MOST_DEATHS:
                say(f"failed: {died}, the {barren}th in a row that did not get on; what is committed stays")
                return 1
            say(f"{died}; another goes on from what is committed")
            dead[f"{family}_{len(dead)}"] = code


class _Signals:
    """SIGINT and SIGTERM go to the child while there is one; what becomes of it is waited for."""

    def __init__(self) -> None:
        self.child = 0
        self._first: float | None = None
        self._ends_by = math.inf
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        return self._first is not None

    @property
    def overdue(self) -> bool:
        """Whether the child, asked to end, should have: its own handlers do not run inside native code."""
        return time.monotonic() > self._ends_by

    def __enter__(self) -> _Signals:
        for number in _HEEDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._pass_on)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self._first = self._first or now
        if now - self._first >= AGAIN_S:
            self._ends_by = min(self._ends_by, now + GRACE_S)
        elif number == signal.SIGINT:
            self._ends_by = min(self._ends_by, now + CLEANUP_S + GRACE_S)
        if self.child:
            with suppress(ProcessLookupError):
                os.kill(self.child, number)


def _one_child(
    family: str, dead: Mapping[str, int], work: Callable[[Child], int], signals: _Signals
) -> tuple[set[int], int]:
    """The words that one child said, and its exit code (below 0: a signal)."""
    ours, its = os.pipe()
    parent = os.getpid()
    _flushed()
    with _held_back():
        if signals.asked:
            return set(), 1
        signals.child = os.fork()
        if not signals.child:
            _work(Child(family, dead, its), parent, work, signals)
    os.close(its)
    try:
        return _listen(ours, signals)
    finally:
        signals.child = 0
        os.close(ours)


def _listen(words: int, signals: _Signals) -> tuple[set[int], int]:
    """Until the child has ended (its pipe may stay open longer, in a process that it started)."""
    heard: set[int] = set()
    its_end = os.pidfd_open(signals.child)
    try:
        while its_end not in (ready := select.select([words, its_end], [], [], _LOOK_EVERY_S)[0]):
            if words in ready:
                heard.update(os.read(words, 4096))
            if signals.overdue:
                os.kill(signals.child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(signals.child, 0)[1])
        while select.select([words], [], [], 0)[0] and (said := os.read(words, 4096)):
            heard.update(said)
        return heard, code
    finally:
        os.close(its_end)


def _flushed() -> bool:
    """Everything that was said is out; False where nobody takes it."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by whoever started this
                stream.flush()
    except OSError:
        return False
    return True


@contextmanager
def _held_back() -> Iterator[None]:
    """Signals wait until the end of the block."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED)


def _work(child: Child, parent: int, work: Callable[[Child], int], signals: _Signals) -> NoReturn:
    """The life of a child."""
    code = 1
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        signals.__exit__()
        before_an_end(child.says_that_it_ends)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED)
        code = work(child)
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)  # all that is left is to say so
    except BaseException:
        traceback.print_exc()
    child.end(code)


def _how(code: int) -> str:
    """How a child died."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
