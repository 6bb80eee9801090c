"""What people see while a command runs: phases by name, and one line in plain units, the same in a terminal,
a log file or JSON.

Invariant: inside a phase nobody waits longer than `SILENT_S` without a line; when nothing was said for so
long, the thread of `_Pulse` says where things stand. Names of files and words of decoders come from outside;
`tame` keeps them from steering a terminal.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

SILENT_S = 10.0
"""Nothing is silent for longer."""
_TERMINAL_S, _LOG_S = 0.5, SILENT_S
_SHORT_S = 1.0
"""A phase that is over sooner is not named, unless it was at once."""
_LOOK_EVERY_S = 0.5
_RECENT_S, _APART_S, _FEW = 60.0, 0.5, 4
"""The pace is that of so many seconds, from points that far apart, or of so few points if they are older."""
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def tame(text: str, *, lines: bool = True) -> str:
    """`text` with what steers a terminal (escapes, changes of direction) spelled out.

    Line breaks stay unless `lines` is False.
    """
    text = text if lines else text.replace("\n", "\\n")
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@dataclass(slots=True)
class Counts:
    """Where the run stands. ``resumed_frames`` were committed by an earlier driver and cost nothing now."""

    videos: int = 0
    videos_total: int = 0
    frames: int = 0
    frames_total: int = 0
    resumed_frames: int = 0
    under_way: int = 0
    """Frames that are through the engine of this process and not committed yet."""
    keys: int = 0
    quarantined: int = 0
    labelled: float = 0.0
    """Pseudo-labels: sum over this driver's frames of the share of pixels with a label."""

    @property
    def seen(self) -> int:
        """Frames that are done as far as a person cares."""
        frames = self.frames + self.under_way
        return min(frames, self.frames_total) if self.frames_total else frames


class Pace:
    """How fast things have gone lately: in the last minute, or the last few steps where they are rarer."""

    def __init__(self) -> None:
        self._seen = deque([(time.monotonic(), 0.0)])

    def per_s(self, done: float) -> float:
        """What is done a second now that so much is done in all; 0: not known yet."""
        now, seen = time.monotonic(), self._seen
        if len(seen) > 1 and now - seen[-2][0] < _APART_S:
            seen[-1] = now, done
        elif done != seen[-1][1]:
            seen.append((now, done))
        while len(seen) > _FEW and seen[1][0] < now - _RECENT_S:
            seen.popleft()
        then, before = seen[0]
        return max(0.0, done - before) / (now - then) if now > then else 0.0


@dataclass(slots=True, eq=False)
class _Phase:
    """What a command is at, and how that was last said to stand."""

    name: str
    reporter: Reporter
    begun: float = field(default_factory=lambda: time.monotonic())
    stand: Callable[[], tuple[str, dict[str, Any]]] | None = None
    stand_s: float = 0.0
    """When that was new."""


class Reporter:
    """Prints to ``stream`` (default stderr).

    Rewrites its line in a terminal (unless ``live`` is False: others write there), adds one every 10 s in a
    log.
    """

    def __init__(self, style: str = "text", stream: TextIO | None = None, *, live: bool = True) -> None:
        self._json = style == "json"
        self._stream = stream or sys.stderr
        self._live = live and not self._json and self._stream.isatty()
        self._last = time.monotonic()
        self._width = 0
        self._always: dict[str, Any] = {}
        self.start_clock()

    def bind(self, **fields: Any) -> None:
        """Fields that every JSON line has from now on (which run it is)."""
        self._always |= fields

    def start_clock(self) -> None:
        """Rates count from here (Ray is up, the plan is made)."""
        self._started, self._pace = time.monotonic(), Pace()

    @contextmanager
    def phase(self, name: str, *, at_once: bool = False) -> Iterator[None]:
        """Inside the block the command is at ``name``, and says so if it takes longer than a moment.

        ``at_once``: it is known to, or it may keep other threads from running (imports do).
        """
        phase = _Phase(name, self)
        _PULSE.begin(phase)
        try:
            if at_once:
                self._speak(phase)
            yield
        finally:
            _PULSE.end(phase)
            with _PULSE.lock:
                self._clear()

    def say(self, text: str, **fields: Any) -> None:
        """A message of its own."""
        if self._json:
            self._event({"event": "message", "text": text}, fields)
        else:
            self._print(f"vidseg: {tame(text)}")

    @property
    def is_json(self) -> bool:
        """Whether every line is a JSON object."""
        return self._json

    def event(self, kind: str, **fields: Any) -> None:
        """A JSON line of its own (``--log json`` only)."""
        self._event({"event": kind}, fields)

    def block(self, text: str) -> None:
        """Several lines as they are."""
        self._print(tame(text))

    def tick(self, counts: Counts, force: bool = False) -> None:
        """Show ``counts`` if it is time to."""
        self._show(lambda: self._stand_of(counts), force)

    def show(self, text: str, fields: dict[str, Any], force: bool = False) -> None:
        """Where things stand, if it is time to say so: ``text`` for people, ``fields`` in JSON."""
        self._show(lambda: (text, fields), force)

    def beat(self, phase: _Phase, said: float) -> None:
        """Called now and then inside a phase by the thread that looks after it; ``said``: when anybody spoke
        last."""
        now = time.monotonic()
        if (self._live or now - said >= SILENT_S) if said > phase.begun else now - phase.begun >= _SHORT_S:
            self._speak(phase)

    def _speak(self, phase: _Phase) -> None:
        """Say what the command is at, or how that was last said to stand."""
        now = time.monotonic()
        if phase.stand:
            (text, fields), idle_s = phase.stand(), now - phase.stand_s
            ago = f" ({clock(idle_s)} ago)" if idle_s >= SILENT_S else ""
            self._progress(text + ago, fields | {"idle_s": round(idle_s, 1)})
            return
        seconds = now - phase.begun
        if self._json:
            self.event("phase", phase=phase.name, seconds=round(seconds, 1))
        else:
            self._progress(f"{phase.name} ({clock(seconds)})" if seconds > 2 * _SHORT_S else phase.name, {})

    def _stand_of(self, counts: Counts) -> tuple[str, dict[str, Any]]:
        seconds = time.monotonic() - self._started
        fps = self._pace.per_s(max(0, counts.seen - counts.resumed_frames))
        fields = {"seconds": round(seconds, 1)} | asdict(counts) | {"fps": round(fps, 2)}
        return progress_line(counts, fps), fields

    def _show(self, stand: Callable[[], tuple[str, dict[str, Any]]], force: bool) -> None:
        now = time.monotonic()
        if phase := _PULSE.phase_of(self):
            phase.stand, phase.stand_s = stand, now
        if force or now - self._last >= (_TERMINAL_S if self._live else _LOG_S):
            self._progress(*stand())

    def _progress(self, text: str, fields: dict[str, Any]) -> None:
        self._last = time.monotonic()
        if self._json:
            self._event({"event": "progress"}, fields)
        elif not self._live:
            self._print("vidseg: " + text)
        else:
            with _PULSE.lock:
                self._clear()
                self._width = len("vidseg: " + text)
                self._write("\rvidseg: " + text)

    def _event(self, head: dict[str, Any], fields: dict[str, Any]) -> None:
        with _PULSE.lock:
            self._write(json.dumps(head | self._always | fields) + "\n")

    def _print(self, text: str) -> None:
        with _PULSE.lock:
            self._clear()
            self._write(text + "\n")

    def _clear(self) -> None:
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        _PULSE.said = time.monotonic()
        self._stream.write(text)
        self._stream.flush()


class _Pulse:
    """The phases of this process, the innermost last, and the thread that speaks in them when nobody does.

    One for all reporters: a process has one terminal.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.said = time.monotonic()
        self._phases: list[_Phase] = []
        self._over = threading.Event()

    def begin(self, phase: _Phase) -> None:
        with self.lock:
            self._phases.append(phase)
            if len(self._phases) == 1:
                self._over = threading.Event()
                threading.Thread(target=self._watch, args=[self._over], daemon=True).start()

    def end(self, phase: _Phase) -> None:
        with self.lock:
            self._phases.remove(phase)
            if not self._phases:
                self._over.set()

    def phase_of(self, reporter: Reporter) -> _Phase | None:
        """The innermost phase, if this reporter opened it."""
        with self.lock:
            return self._phases[-1] if self._phases and self._phases[-1].reporter is reporter else None

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(_LOOK_EVERY_S):
            try:
                self.look()
            except (OSError, ValueError):  # nobody listens any more
                return

    def look(self) -> None:
        """Let the innermost phase speak if it is time to."""
        with self.lock:
            if self._phases:
                phase = self._phases[-1]
                phase.reporter.beat(phase, self.said)


_PULSE = _Pulse()


def spoke() -> None:
    """Something was printed that no reporter printed: nobody need speak for a while."""
    _PULSE.said = time.monotonic()


def progress_line(counts: Counts, fps: float) -> str:
    """``videos 3/10 | frames 1,200/9,000 (13 %) | 240 fps | keys 4.1 % | quarantined 0 | ETA 0:32``.

    ``fps``: frames a second of late.
    """
    seen, total = counts.seen, counts.frames_total
    done, share = (f"{seen:,}/{total:,}", f" ({100 * seen / total:.0f} %)") if total else (f"{seen:,}", "")
    keys = f"{100 * counts.keys / counts.frames:.1f} %" if counts.frames else "-"
    eta = clock((total - seen) / fps) if fps > 0 and total else "-"
    return (
        f"videos {counts.videos}/{counts.videos_total} | frames {done}{share} | "
        f"{fps:.1f} fps | keys {keys} | quarantined {counts.quarantined} | ETA {eta}"
    )


def pace_text(pace: Pace, done: int, total: int) -> str:
    """``12.5 fps | ETA 0:32``, from how fast frames went of late; ``total`` 0: not known."""
    fps = pace.per_s(done)
    eta = clock(max(0, total - done) / fps) if fps > 0 and total else "-"
    return f"{fps:.1f} fps | ETA {eta}"


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
