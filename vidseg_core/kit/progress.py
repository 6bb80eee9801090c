"""What people see while the job runs: one line in plain units, the same in a terminal, a log file or JSON.

Names of files and words of decoders come from outside; `tame` keeps them from steering a terminal.
"""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, TextIO

_TERMINAL_S, _LOG_S = 0.5, 10.0
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
    keys: int = 0
    quarantined: int = 0
    labelled: float = 0.0
    """Pseudo-labels: sum over this driver's frames of the share of pixels with a label."""


class Reporter:
    """Prints to ``stream`` (default stderr).

    Rewrites its line in a terminal, adds one every 10 s in a log.
    """

    def __init__(self, style: str = "text", stream: TextIO | None = None) -> None:
        self._json = style == "json"
        self._stream = stream or sys.stderr
        self._live = not self._json and self._stream.isatty()
        self._started = self._last = time.monotonic()
        self._width = 0
        self._always: dict[str, Any] = {}

    def bind(self, **fields: Any) -> None:
        """Fields that every JSON line has from now on (which run it is)."""
        self._always |= fields

    def start_clock(self) -> None:
        """Rates count from here (Ray is up, the plan is made)."""
        self._started = time.monotonic()

    def say(self, text: str, **fields: Any) -> None:
        """A message of its own."""
        if self._json:
            self._write(json.dumps({"event": "message", "text": text} | self._always | fields) + "\n")
        else:
            self._clear()
            self._write(f"vidseg: {tame(text)}\n")

    @property
    def is_json(self) -> bool:
        """Whether every line is a JSON object."""
        return self._json

    def event(self, kind: str, **fields: Any) -> None:
        """A JSON line of its own (``--log json`` only)."""
        self._write(json.dumps({"event": kind} | self._always | fields) + "\n")

    def block(self, text: str) -> None:
        """Several lines as they are."""
        self._clear()
        self._write(tame(text) + "\n")

    def tick(self, counts: Counts, force: bool = False) -> None:
        """Show ``counts`` if it is time to."""
        seconds = time.monotonic() - self._started
        fields = {"seconds": round(seconds, 1)} | asdict(counts) | {"fps": round(_fps(counts, seconds), 2)}
        self.show(progress_line(counts, seconds), fields, force)

    def show(self, text: str, fields: dict[str, Any], force: bool = False) -> None:
        """Where things stand, if it is time to say so: ``text`` for people, ``fields`` in JSON."""
        now = time.monotonic()
        if not force and now - self._last < (_TERMINAL_S if self._live else _LOG_S):
            return
        self._last = now
        if self._json:
            self._write(json.dumps({"event": "progress"} | self._always | fields) + "\n")
            return
        line = "vidseg: " + text
        if self._live:
            self._clear()
            self._width = len(line)
            self._write("\r" + line)
        else:
            self._write(line + "\n")

    def _clear(self) -> None:
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def progress_line(counts: Counts, seconds: float) -> str:
    """``videos 3/10 | frames 1,200/9,000 (13 %) | 240 fps | keys 4.1 % | quarantined 0 | ETA 0:32``."""
    done = f"{counts.frames:,}/{counts.frames_total:,}" if counts.frames_total else f"{counts.frames:,}"
    share = f" ({100 * counts.frames / counts.frames_total:.0f} %)" if counts.frames_total else ""
    keys = f"{100 * counts.keys / counts.frames:.1f} %" if counts.frames else "-"
    return (
        f"videos {counts.videos}/{counts.videos_total} | frames {done}{share} | "
        f"{_fps(counts, seconds):.1f} fps | keys {keys} | quarantined {counts.quarantined} | "
        f"ETA {_eta(counts, seconds)}"
    )


def _fps(counts: Counts, seconds: float) -> float:
    return (counts.frames - counts.resumed_frames) / seconds if seconds > 0 else 0.0


def _eta(counts: Counts, seconds: float) -> str:
    fps = _fps(counts, seconds)
    if fps <= 0 or not counts.frames_total:
        return "-"
    return clock(max(0, counts.frames_total - counts.frames) / fps)


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
