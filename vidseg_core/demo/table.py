"""The demo's last word: one line per scheduler on standard output, for people or as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vidseg_core.config.catalogue import EVERY, SCHEDULERS
from vidseg_core.config.segment import SchedulerConfig
from vidseg_core.demo.measure import Score

_HEADERS = ("AKI", "mIoU:\ntruth", "mIoU:\nevery", "pixels:\nevery", "calls\nsaved", "fps", "speed")
_NOTES = """\
AKI: frames per key frame. truth: the exact masks of the scenes. every: the same
net on every frame (fidelity: mIoU, and the share of equal pixels). calls saved:
frames on which the net did not run. Schedulers that score have thresholds that
give about the AKI of fixed. fps: frames per second of work, decoding included;
speed: beside the net on every frame. The more a net costs, the nearer speed
comes to AKI; `vidseg segment --dry-run` says what yours costs."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A scheduler as it was run, and what came of it."""

    scheduler: SchedulerConfig
    score: Score

    @property
    def setting(self) -> str:
        """When a frame is key, in a few characters."""
        if self.scheduler.name == EVERY:
            return "all"
        if self.scheduler.threshold is not None:
            return f"score > {self.scheduler.threshold:g}"
        entry = SCHEDULERS.get(self.scheduler.name)
        if entry is None or not entry.takes_interval:
            return "its own"
        return f"each {self.scheduler.interval}th" if entry.feature else f"one in {self.scheduler.interval}"


def print_lines(lines: Sequence[Line], files: Mapping[str, Path], log: str) -> None:
    """The comparison, then where the pictures are."""
    if log == "json":
        for line in lines:
            print(json.dumps({"event": "score", "scheduler": line.scheduler.name, **_plain(line)}))
        for what, path in files.items():
            print(json.dumps({"event": "file", "what": what, "path": str(path)}), flush=True)
        return
    Console().print(_table(lines), _NOTES, "", sep="\n", highlight=False)
    width = max(map(len, files))
    for what, path in files.items():
        print(f"{what:<{width}}  {path}", flush=True)


def _plain(line: Line) -> dict[str, str | float | None]:
    """Threshold and every single number of the score."""
    numbers = {f.name: getattr(line.score, f.name) for f in fields(line.score) if f.name != "agreement"}
    return {"threshold": line.scheduler.threshold, **numbers}


def _table(lines: Sequence[Line]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scheduler", no_wrap=True)
    table.add_column("key if", no_wrap=True)
    for header in _HEADERS:
        table.add_column(header, justify="right", no_wrap=True)
    reference = next(line.score for line in lines if line.scheduler.name == EVERY)
    for line in lines:
        score = line.score
        table.add_row(
            line.scheduler.name,
            line.setting,
            f"{score.aki:.1f}",
            f"{score.truth_miou:.3f}",
            f"{score.fidelity_miou:.3f}",
            f"{100 * score.pixel_agreement:.2f} %",
            f"{100 * score.calls_saved:.1f} %",
            f"{score.fps:.0f}",
            f"{score.speed(reference):.1f} x",
        )
    return table
