"""Ray's own lines go to a file of its session, not among ours.

Four ways lead from Ray to the terminal of the process that uses it: the handler of its loggers, what it
prints of raylets and workers, Python's warnings, and native code, which writes to file descriptor 2. The last
is taken only where Python's own errors go by another one, as they do in commands (`cli.runner`). Before the
session has a folder the lines wait. The names inside Ray that are used here are pinned by `test_ray_log.py`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import mkdtemp
from typing import Any

import ray
from ray._private import log, worker

from vidseg_core.kit.local_ray import swapped

_NAME = "vidseg-driver.log"
_LINE = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
_OF_RAY = os.path.dirname(ray.__file__) + os.sep


class RayLog:
    """Where the lines go."""

    def __init__(self) -> None:
        self.path: str | None = None
        self._waiting: list[str] = []
        self._lock = threading.Lock()
        self._stderr: int | None = None
        """What descriptor 2 was."""

    def write(self, text: str) -> None:
        """Lines of Ray's."""
        with self._lock:
            self._waiting.append(text.rstrip("\n") + "\n")
            if self.path is not None:
                with open(self.path, "a", encoding="utf-8", errors="backslashreplace") as file:
                    file.writelines(self._waiting)
                self._waiting.clear()

    def open(self) -> str:
        """The file, beside those of Ray's own processes where some are on this machine; Ray is up."""
        node = worker._global_node
        folder = node.get_logs_dir_path() if node is not None else mkdtemp(prefix="vidseg-ray-")
        self.path = os.path.join(folder, _NAME)
        self.write(f"what Ray says to process {os.getpid()}")
        if not _is_descriptor_2(sys.stderr):
            self._stderr = os.dup(2)
            with open(self.path, "ab") as file:
                os.dup2(file.fileno(), 2)
        return self.path

    def close(self) -> None:
        """Native code is heard again."""
        if self._stderr is not None:
            os.dup2(self._stderr, 2)
            os.close(self._stderr)
            self._stderr = None


def _is_descriptor_2(stream: Any) -> bool:
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


@contextmanager
def ray_lines_apart() -> Iterator[RayLog]:
    """Inside the block what Ray would print goes to the log that is given."""
    found = RayLog()
    show = warnings.showwarning

    def show_others(message: Any, category: Any, filename: str, lineno: int, *rest: Any) -> None:
        if filename.startswith(_OF_RAY):
            found.write(warnings.formatwarning(message, category, filename, lineno))
        else:
            show(message, category, filename, lineno, *rest)

    def emit(handler: logging.Handler, record: logging.LogRecord) -> None:
        found.write(_LINE.format(record))

    def keep(data: Any, *rest: Any, **named: Any) -> None:
        found.write("\n".join(f"({data.get('pid')}) {line}" for line in data["lines"]))

    with (
        swapped(log.PlainRayHandler, "emit", emit),
        swapped(worker, "print_to_stdstream", keep),
        swapped(warnings, "showwarning", show_others),
    ):
        try:
            yield found
        finally:
            found.close()
