"""Whose fault it is when a process ends without a word: what it was at is marked in the store.

Model: a process that takes the place of one that died is careful: it does one thing at a time. Before each it
leaves a mark that names itself and the *place* of the thing: a shard of a segment, or the start of an engine.
When the thing is done the mark is taken away. The mark of a process that is no more says what it died of:

* a crash counts: of native code, or the kernel ended the process because memory ran out;
* a kill by Ray's memory monitor is counted on its own: the machine is full, the place need not be bad;
* a process that went with its node, or that somebody ended on purpose, counts for nothing.

Invariant: a place is given up after `MOST_DEATHS` crashes there, each of a process that did nothing else, and
without the place having been passed in between. What cannot be judged (another cluster, a process that is
alive) does not count. What was judged stays, so a later driver goes on counting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from vidseg_core.kit.explain import advice
from vidseg_core.pipeline.failures import MOST_FAILURES, EngineBroken
from vidseg_core.store.keys import CRASH_PREFIX, attempt_key, crash_key, parse_attempt
from vidseg_core.store.objects import ObjectStore

CRASH_REASON = "engine_crash"
MOST_DEATHS = 3
"""So many deaths alone at one place; then it is not tried again."""
CAREFUL_CALLS = 16
"""So many calls a process that replaces another does one thing at a time."""


class Fate(StrEnum):
    """What became of a process; the words end the names of marks."""

    RUNNING = "running"
    CRASHED = "crashed"
    NO_MEMORY = "no-memory"
    """Ray's memory monitor ended it, or the kernel."""
    GONE = "gone"
    """It went with its node, or because somebody wanted it."""
    UNKNOWN = "unknown"


_COUNTED = (Fate.CRASHED, Fate.NO_MEMORY)


class Process(Protocol):
    """The process that this code runs in, and what it can say of others."""

    @property
    def name(self) -> str:
        """Letters, digits and `_`; no two processes have the same."""
        ...

    @property
    def replaces_another(self) -> bool:
        """Whether it took the place of one that ended before its work was done."""
        ...

    def fate_of(self, name: str) -> Fate:
        """What became of the process of that name."""
        ...


class Lonely:
    """A process that nobody replaces: nothing is marked, nothing is counted."""

    name = "lonely"
    replaces_another = False

    def fate_of(self, name: str) -> Fate:
        return Fate.UNKNOWN


@dataclass(frozen=True, slots=True)
class Toll:
    """Deaths at one place so far."""

    crashes: int = 0
    memory_kills: int = 0

    @property
    def is_final(self) -> bool:
        return max(self.crashes, self.memory_kills) >= MOST_DEATHS


def forget_given_up(store: ObjectStore) -> None:
    """Begins the count of videos in a row anew, as every driver does."""
    for info in list(store.list(CRASH_PREFIX)):
        store.delete(info.key)


class Deaths:
    """Marks of one process, and the count of others' at the places that it comes to."""

    def __init__(self, store: ObjectStore, process: Process) -> None:
        self._store, self._process = store, process
        self._calls_left = CAREFUL_CALLS if process.replaces_another else 0
        self._marks: set[str] = set()
        self._any_given_up = process.replaces_another

    @property
    def careful(self) -> bool:
        """Whether to do one thing at a time, and to mark it."""
        return self._calls_left > 0

    def count_call(self) -> None:
        """A call came to its end."""
        self._calls_left -= 1

    def enter(self, place: str) -> Toll:
        """How many died here. Where that may still be chance, this process is marked as being here."""
        fates: dict[str, Fate] = {}
        for info in list(self._store.list(f"{place}-")):
            if attempt := parse_attempt(place, info.key):
                name, word = attempt
                fates[name] = self._judged(place, name) if word == Fate.RUNNING else Fate(word)
        counted = Counter(fates.values())
        toll = Toll(counted[Fate.CRASHED], counted[Fate.NO_MEMORY])
        self._marks = {attempt_key(place, name, fate) for name, fate in fates.items() if fate in _COUNTED}
        if not toll.is_final:
            self._store.put(own := attempt_key(place, self._process.name, Fate.RUNNING), b"")
            self._marks.add(own)
        return toll

    def leave(self) -> None:
        """The place that was entered last is left alive: what was counted there is forgotten."""
        for key in self._marks:
            self._store.delete(key)
        self._marks = set()

    def passed(self) -> None:
        """The place is left with its work committed, so the engine itself is sound."""
        self.leave()
        if self._any_given_up:
            self._forget_given_up()

    def give_up(self, video_id: str, why: str) -> None:
        """Counts a video of which processes died; `EngineBroken` when it was one video after the other."""
        self._store.put(crash_key(video_id), b"")
        self._any_given_up = True
        in_a_row = sum(1 for _ in self._store.list(CRASH_PREFIX))
        if in_a_row >= MOST_FAILURES:
            self._forget_given_up()
            raise EngineBroken(
                f"the engine's process died on {in_a_row} videos in a row, the last one (video {video_id}): "
                f"{why}; --retry_quarantined tries the quarantined again"
            )

    def _forget_given_up(self) -> None:
        forget_given_up(self._store)
        self._any_given_up = False

    def _judged(self, place: str, name: str) -> Fate:
        """The fate of a process whose mark says that it is here; from now on the mark says that."""
        fate = Fate.RUNNING if name == self._process.name else self._process.fate_of(name)
        if fate in _COUNTED:
            self._store.put(attempt_key(place, name, fate), b"")
        if fate in (*_COUNTED, Fate.GONE):
            self._store.delete(attempt_key(place, name, Fate.RUNNING))
        return fate


_CRASH = "a crash of native code, or the kernel ended it because memory ran out"


def crash_reason(segment: int, frame_index: Sequence[int]) -> tuple[str, str]:
    """(reason code, one sentence) for the row of a video that is given up."""
    frames = f"frames {frame_index[0]} to {frame_index[-1]}" if len(frame_index) else "no frames"
    text = f"the engine's process died {MOST_DEATHS} times with segment {segment}, {frames}, alone: {_CRASH}"
    return CRASH_REASON, f"{CRASH_REASON}: {text}"


def memory_failure(where: str, config: object) -> EngineBroken:
    """The end of a run whose engines are ended each time because memory runs out."""
    return EngineBroken(
        f"the engine's process was killed {MOST_DEATHS} times at {where}, with nothing else in hand, as "
        f"Ray's memory monitor and the kernel do when memory runs out; {advice(config)}"
    )


def start_failure(toll: Toll, config: object) -> EngineBroken:
    """The end of a run whose engines do not live to their first frame."""
    if toll.memory_kills >= toll.crashes:
        return memory_failure("its start", config)
    return EngineBroken(f"the engine's process died {MOST_DEATHS} times while it loaded its nets: {_CRASH}")
