"""Rows of the curve on their way from the first worker to the driver: a file that grows by whole lines."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROGRESS = "progress.jsonl"
PAUSE_S = 0.3

Row = dict[str, Any]


def teller(folder: Path) -> Callable[[Row], None]:
    """What the first worker calls with each row; a full disk loses the row, not the run."""

    def tell(row: Row) -> None:
        with suppress(OSError), open(folder / PROGRESS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    return tell


@contextmanager
def followed(folder: Path, watch: Callable[[Row], None]) -> Iterator[None]:
    """While the block runs, `watch` gets each new row, from a thread of its own."""
    path, over = folder / PROGRESS, threading.Event()
    path.unlink(missing_ok=True)
    thread = threading.Thread(target=_follow, args=(path, watch, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _follow(path: Path, watch: Callable[[Row], None], over: threading.Event) -> None:
    read, last = 0, False
    while not last:
        last = over.wait(PAUSE_S)
        data = path.read_bytes()[read:] if path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        read += len(whole)
        for line in whole.splitlines():
            watch(json.loads(line))
