"""A command whose work is done in a child process, which another replaces when it dies.

Model: this process stays small (no torch, no Ray). It forks before anything heavy is imported; the child does
the work and says over a pipe when it has begun what can be gone on with (`Child.begin`), when it gets on
(`Child.gets_on`), and when it ends by itself. One that ends without that word has died: native code, the
kernel because memory ran out, somebody with `kill -9`. If it had begun, the next child goes on from what is
committed and knows who died before it (`pipeline.deaths` judges by that); if not, or if it ended by itself,
its end is the command's.
Invariant: a signal reaches the child once or twice within moments (which is one request, see `interrupts`),
nobody who was asked to end is replaced, and no child outlives this process, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex
from types import FrameType
from typing import Any, NoReturn

MOST_DEATHS = 40
"""So many children in a row may die without getting on; a video that is given up takes three or four."""
_BEGUN, _GETS_ON, _ENDS = range(3)
_PR_SET_PDEATHSIG = 1
_HEEDED = (signal.SIGINT, signal.SIGTERM)


class Child:
    """The process that does the work: what it says to its parent, and what it knows of those before it (a
    `deaths.Process`)."""

    def __init__(self, family: str, dead: tuple[str, ...], words: int) -> None:
        self.name = f"{family}_{len(dead)}"
        self._dead, self._words = dead, words

    @property
    def replaces_another(self) -> bool:
        """Whether one before it died."""
        return bool(self._dead)

    def fate_of(self, name: str) -> Any:
        """What became of the process of that name."""
        from vidseg_core.pipeline.deaths import Fate

        return Fate.CRASHED if name in self._dead else Fate.UNKNOWN

    def begin(self) -> None:
        """From now on another can go on where this one dies."""
        os.write(self._words, bytes([_BEGUN]))

    def gets_on(self) -> None:
        """Something is committed."""
        os.write(self._words, bytes([_GETS_ON]))

    def end(self, code: int) -> NoReturn:
        """The end of this process, wanted by itself."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or 1
        os.write(self._words, bytes([_ENDS]))
        os._exit(code)


def supervised(
    work: Callable[[Child], int], say: Callable[[str], None], interrupted: Callable[[], None]
) -> int:
    """The exit code of ``work``, done in one child after another.

    ``say`` hears why a child is replaced, or why none is; ``interrupted`` is called if one that was asked to
    end dies without a word.
    """
    family, dead, barren = f"local{token_hex(6)}", (), 0
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
            dead = (*dead, f"{family}_{len(dead)}")


class _Signals:
    """SIGINT and SIGTERM go to the child while there is one."""

    def __init__(self) -> None:
        self.asked = False
        self.child = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Signals:
        for number in _HEEDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self.child:
            os.kill(self.child, number)


def _one_child(
    family: str, dead: tuple[str, ...], work: Callable[[Child], int], signals: _Signals
) -> tuple[set[int], int]:
    """The words that one child said, and its exit code (below 0: a signal)."""
    ours, its = os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    with _held_back():
        if signals.asked:
            return set(), 1
        signals.child = os.fork()
        if not signals.child:
            _work(Child(family, dead, its), parent, work, signals)
    os.close(its)
    try:
        return _listen(ours, signals.child)
    finally:
        signals.child = 0
        os.close(ours)


def _listen(words: int, child: int) -> tuple[set[int], int]:
    """Until the child has ended (its pipe may stay open longer, in a process that it started)."""
    heard: set[int] = set()
    its_end = os.pidfd_open(child)
    try:
        while True:
            ready = select.select([words, its_end], [], [])[0]
            if words in ready:
                said = os.read(words, 4096)
                heard.update(said)
                if said:
                    continue
            if its_end in ready:
                return heard, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            select.select([its_end], [], [])
    finally:
        os.close(its_end)


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
