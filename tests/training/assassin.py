"""Kills a worker of Ray Train, as a spot market would: with SIGKILL, in the middle of a run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def killed_worker(checkpoint: Path, step: int) -> Iterator[None]:
    """Inside, one training worker gets SIGKILL as soon as the run has saved `step`; there must be one."""
    assassin = Assassin(checkpoint, step)
    assassin.start()
    try:
        yield
    finally:
        assassin.over.set()
        assassin.join()
    assert assassin.killed is not None, "there was no training worker to kill"


class Assassin(threading.Thread):
    def __init__(self, checkpoint: Path, step: int) -> None:
        super().__init__(daemon=True)
        self._checkpoint, self._step = checkpoint, step
        self._older = {process.pid for process in _workers()}
        self.over = threading.Event()
        self.killed: int | None = None

    def run(self) -> None:
        while self.killed is None and not self.over.wait(0.02):
            if _saved_step(self._checkpoint) < self._step:
                continue
            for process in _workers():
                if process.pid not in self._older and self.killed is None:
                    process.kill()
                    self.killed = process.pid


def _workers() -> list[psutil.Process]:
    here = psutil.Process().children(recursive=True)
    return [process for process in here if "RayTrainWorker" in _title(process)]


def _saved_step(checkpoint: Path) -> int:
    try:
        return json.loads(checkpoint.read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError):
        return 0


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
