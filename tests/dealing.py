"""How tests are dealt to the processes of `pytest -n 2`, and a line that says where their time went.

One Ray (`local_ray`) is used by many tests, so all of them are the work of one process, which begins with
them. A file that starts Rays of its own, in processes of their own, is a piece of work like any other file,
but an early one: what is long must not come last.

A process of tests knows the fixtures of a test, whoever deals knows its name only: the first process writes
down which test belongs to which piece. (xdist's own groups are names with an @ behind; pytest 9 drops that.)
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


class Pieces(LoadScopeScheduling):
    """Deals whole pieces, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Any, file: Path) -> None:
        super().__init__(config, log)
        self._file = file
        self._pieces: dict[str, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        if not self._pieces:
            self._pieces = json.loads(self._file.read_text(encoding="utf-8"))
            self._file.unlink()
        return self._pieces[nodeid]


def _file_of(pid: int) -> Path:
    return Path(tempfile.gettempdir(), f"vidseg-tests-{pid}.json")


def pytest_configure_node(node: Any) -> None:
    node.workerinput["dealt_by"] = os.getpid()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Pieces:
    return Pieces(config, log, _file_of(os.getpid()))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        items.sort(key=_turn)  # stable: the order inside a file stays
        if worker["workerid"] == "gw0":
            pieces = {item.nodeid: "ray" if _shares_a_ray(item) else str(item.path) for item in items}
            _file_of(worker["dealt_by"]).write_text(json.dumps(pieces), encoding="utf-8")


def _turn(item: pytest.Item) -> int:
    if _shares_a_ray(item):
        return 0
    return 1 if item.get_closest_marker("ray") else 2 if item.get_closest_marker("slow") else 3


def _shares_a_ray(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    marked = item.get_closest_marker("ray") is not None
    return "local_ray" in fixtures or (marked and not {"run_on_either", "poisoned"}.isdisjoint(fixtures))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Seconds of each folder's tests, over all processes."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0].rpartition("/")[0]] += report.duration  # type: ignore[arg-type]
    if len(seconds) > 1:
        spent = ", ".join(f"{folder} {time:.0f}" for folder, time in seconds.most_common())
        terminalreporter.section("seconds by folder")
        terminalreporter.line(spent)
