"""A search of thirty trials on two cores: how long, and how much memory the shared tables save.

    python -m benchmarks.search [--json FILE] [--tables SET] [--trials N] [--episodes N] [--no-memory]
                                [--quick]

Runs `vidseg tune` (no finalists) on `--tables`, or on generated ones, with two trials at a time, and prints
the minutes. Then a few trials one at a time and eight at a time, long enough for all eight to be there at
once: memory of the trials' processes (private bytes, so that shared pages count nowhere) and of Ray's object
store, at the most that was seen. (A process that is alone counts the libraries that it shares with nobody.)
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import ray

from benchmarks.rollouts import wide_table
from vidseg_core.config.tune import TuneConfig
from vidseg_core.episodes.store import load_tables, write_table
from vidseg_core.kit.ray_session import ray_session
from vidseg_core.search.tune_job import run_tune
from vidseg_core.store.objects import open_store

SPACE = Path(__file__).parents[1] / "tune_spaces" / "policies.yaml"
MIB = 2**20
LONG = 1600
"""Episodes of the trials whose memory is read: they take longer than eight processes take to start."""


class Watch:
    """The most memory of trials' processes, and how many there were."""

    def __init__(self) -> None:
        self.private, self.store, self.processes = 0, 0, 0

    def look(self) -> None:
        """Once."""
        trials = [p for p in psutil.Process().children(recursive=True) if _is_trial(p)]
        private = sum(_private(process) for process in trials)
        if private > self.private:
            self.private, self.processes = private, len(trials)
        self.store = max(self.store, _store_used())


def _is_trial(process: psutil.Process) -> bool:
    try:
        return "ImplicitFunc" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _private(process: psutil.Process) -> int:
    try:
        info: Any = process.memory_full_info()
        return info.uss
    except psutil.Error:
        return 0


def _store_used() -> int:
    total = ray.cluster_resources().get("object_store_memory", 0)
    return int(total - ray.available_resources().get("object_store_memory", 0))


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Looks every half second."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.5):
            watch.look()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def search(
    tables: str, folder: Path, *, trials: int, at_once: int, episodes: int, all_spaces: bool = True
) -> dict[str, Any]:
    """One search; seconds, memory and what came of it. Without `all_spaces` only trials that learn."""
    config = TuneConfig(
        tables=tables,
        space=str(SPACE),
        output=str(folder),
        trials=trials,
        episodes=episodes,
        finalists=0,
        concurrent=at_once,
        spaces=() if all_spaces else ("light",),
        early_stop=all_spaces,
        intervals=(10.0, 25.0, 50.0),
    )
    watch, started = Watch(), time.monotonic()
    with ray_session(config):
        started_trials = time.monotonic()
        with watched(watch):
            assert run_tune(config) == 0
        seconds = time.monotonic() - started_trials
    rows = pq.read_table(folder / "trials.parquet").to_pylist()
    return {
        "trials": trials,
        "at_once": at_once,
        "episodes": episodes,
        "minutes": round(seconds / 60, 2),
        "minutes_with_ray_start": round((time.monotonic() - started) / 60, 2),
        "stopped_early": sum(bool(row["stopped"]) for row in rows),
        "on_front": sum(row["on_front"] for row in rows),
        "trial_processes": watch.processes,
        "private_mib": round(watch.private / MIB, 1),
        "object_store_mib": round(watch.store / MIB, 1),
    }


def table_bytes(tables: str) -> int:
    """All numbers of a set."""
    found = load_tables(tables)
    arrays = [
        array for table in found for array in (table.quality_TL1, table.deviation_TL1F, table.two_sided_TL1)
    ]
    return sum(array.nbytes for array in arrays if array is not None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--tables")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--episodes", type=int, default=240)
    parser.add_argument("--quick", action="store_true", help="few and short trials: whether it runs")
    parser.add_argument("--no-memory", action="store_true", help="time alone")
    options = parser.parse_args()
    trials, episodes = (4, 32) if options.quick else (options.trials, options.episodes)
    with tempfile.TemporaryDirectory() as scratch:
        tables = options.tables or str(_generated(Path(scratch) / "tables", 300 if options.quick else 900))
        size = table_bytes(tables) / MIB
        print(f"tables: {size:.1f} MiB")
        runs = [(trials, 2, episodes)]
        long = 64 if options.quick else LONG
        runs += [] if options.no_memory else [(2, 1, long), (8, 8, long)]
        rows = []
        for number, (count, at_once, many) in enumerate(runs):
            found = search(
                tables,
                Path(scratch) / f"search-{number}",
                trials=count,
                at_once=at_once,
                episodes=many,
                all_spaces=number == 0,
            )
            rows.append(found)
            print(
                f"{count} trials, {at_once} at a time, {many} episodes each: {found['minutes']:.1f} min; "
                f"{found['stopped_early']} ended early, {found['on_front']} on the front; "
                f"{found['trial_processes']} processes with {found['private_mib']:.0f} MiB of their own, "
                f"object store {found['object_store_mib']:.0f} MiB",
                flush=True,
            )
    if len(rows) > 1:
        one, eight = rows[-2], rows[-1]
        own, alone = (row["private_mib"] / max(1, row["trial_processes"]) for row in (eight, one))
        print(
            f"eight at a time: {own:.0f} MiB a process (one at a time: {alone:.0f}); a copy of "
            f"the tables in each would be {size:.0f} MiB more"
        )
    if options.json:
        Path(options.json).write_text(
            json.dumps({"table_mib": size, "runs": rows}, indent=1) + "\n", encoding="utf-8"
        )


def _generated(folder: Path, frames: int) -> Path:
    for number in range(8):
        write_table(open_store(str(folder)), wide_table(number, frames))
    return folder


if __name__ == "__main__":
    main()
