"""An iterator that a thread works ahead of whoever reads it.

Invariant: what it gives, and what it raises, comes in order; no more than `most` items wait; when the reader
closes it, nothing of it runs any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

_T = TypeVar("_T")
_LOOK_EVERY_S = 0.2


class Ahead(Generic[_T]):
    """Begins at once."""

    def __init__(self, items: Generator[_T], most: int) -> None:
        self._items = items
        self._waiting: Queue[tuple[list[_T], BaseException | None]] = Queue(most)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="vidseg-ahead")
        self._thread.start()

    def __iter__(self) -> Iterator[_T]:
        while True:
            with suppress(Empty):
                found, problem = self._waiting.get(timeout=_LOOK_EVERY_S)
                if problem is not None:
                    raise problem
                if not found:
                    return
                yield found[0]

    def close(self, hurry: Callable[[], None] = lambda: None) -> None:
        """Ends it; ``hurry`` is called if an item is being made and takes its time."""
        self._closed.set()
        self._thread.join(_LOOK_EVERY_S)
        if self._thread.is_alive():
            hurry()
            self._thread.join()

    def _work(self) -> None:
        try:
            with closing(self._items) as items:
                for item in items:
                    self._hand_over([item])
                    if self._closed.is_set():
                        return
            self._hand_over([])
        except BaseException as problem:
            self._hand_over([], problem)

    def _hand_over(self, found: list[_T], problem: BaseException | None = None) -> None:
        while not self._closed.is_set():
            with suppress(Full):
                self._waiting.put((found, problem), timeout=_LOOK_EVERY_S)
                return
