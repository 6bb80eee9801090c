"""A run that is asked to end finishes what it has in hand and begins nothing more.

Model: SIGTERM (the notice of a spot machine, `ray job stop`, a batch system at its limit) makes the driver
put a marker beside the run's states. Decoders look for it now and then; from there on they hand out shards
that say "drained" instead of frames. The engine lets go of a segment at its first such shard, with the state
of the shard before already saved; what was decoded before is segmented and committed. When all branches have
run dry the driver takes the marker away and ends; the same command goes on later.

A marker belongs to one driver: another driver on the same output is not stopped by it. One that cannot be
written is reported, and tried again until the run ends. A second SIGTERM ends the driver at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Protocol

from vidseg_core.kit import interrupts
from vidseg_core.store.keys import DRAIN_PREFIX
from vidseg_core.store.objects import ObjectStore

LOOK_EVERY_S = 2.0
"""A decoder asks the store for the marker no more often."""
WRITE_EVERY_S = 5.0
"""After so long a marker that could not be written is tried again."""


class Drained(Exception):
    """The run has ended early because it was asked to."""


class Mark(Protocol):
    """Whether the run is to end, as a decoder sees it."""

    def is_set(self) -> bool: ...


class DrainMark:
    """Whether one driver's run is to end, as its workers see it; small and picklable."""

    def __init__(self, store: ObjectStore, key: str = "") -> None:
        """No `key`: a run that nobody drains."""
        self._store, self.key = store, key
        self._asked, self._is_set = -LOOK_EVERY_S, False

    def is_set(self) -> bool:
        now = time.monotonic()
        if self.key and not self._is_set and now - self._asked >= LOOK_EVERY_S:
            self._asked = now
            self._is_set = self._store.exists(self.key)
        return self._is_set

    def __getstate__(self) -> dict[str, object]:
        return {"_store": self._store, "key": self.key, "_asked": -LOOK_EVERY_S, "_is_set": False}


class Drain:
    """The driver's side."""

    def __init__(self, store: ObjectStore, tell: Callable[[str], None] = lambda text: None) -> None:
        """`tell` hears what people should know: that it has begun, that the marker cannot be written."""
        self._store, self._tell = store, tell
        self._closed = threading.Event()
        self.key = f"{DRAIN_PREFIX}{token_hex(8)}"
        self.requested = self._acknowledged = False
        self._writer: threading.Thread | None = None

    def mark(self) -> DrainMark:
        """What the workers get."""
        return DrainMark(self._store, self.key)

    def request(self) -> None:
        """Sets the marker, from a thread of its own: a signal may come in the middle of any other request."""
        if not self.requested:
            self.requested = True
            self._writer = threading.Thread(target=self._write, daemon=True)
            self._writer.start()

    def acknowledge(self) -> None:
        """Says, once, that the request is heard."""
        if self.requested and not self._acknowledged:
            self._acknowledged = True
            self._tell("asked to end: finishing what is in flight (again to end at once)")

    def _write(self) -> None:
        told = False
        while not self._closed.is_set():
            try:
                self._store.put(self.key, b"")
                return
            except Exception as problem:  # a thread's exception would be lost
                if not told:
                    self._tell(
                        f"the workers cannot be asked to end ({problem}); trying again, and the run goes on "
                        "meanwhile (SIGTERM again to end at once)"
                    )
                told = True
            self._closed.wait(WRITE_EVERY_S)

    def close(self) -> None:
        """Takes the marker away."""
        self._closed.set()
        if self._writer is not None:
            self._writer.join(30)
            with suppress(Exception):
                self._store.delete(self.key)

    @contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """The first SIGTERM requests the drain inside the block (see `interrupts`)."""
        try:
            with interrupts.drains(self.request):
                yield
        finally:
            self.close()
