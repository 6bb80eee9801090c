"""This version of the project beside another, turn by turn, so that what the machine does meanwhile falls on
both alike.

Model: the other version is a git worktree in a temporary folder, with the `benchmarks` of *this* checkout put
over its own, so that other code is measured in the same way. A turn is one of the two checkouts, as the
`PYTHONPATH` of a fresh process. Which one begins changes from turn to turn. Compared are the medians of all
turns.

    python -m benchmarks.plumbing --against v0.1
    python -m benchmarks.speedup --against HEAD~3 --frames 120
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
Figures = Mapping[str, float]
"""What a turn measured, by name; more is better."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a comparison."""
    parser.add_argument("--against", metavar="REV", help="compare with this revision, in alternating turns")
    parser.add_argument("--turns", type=int, default=5, help="turns of each version")
    parser.add_argument("--once", nargs="*", help=argparse.SUPPRESS)


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A worktree of `revision`, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="vidseg-against-") as scratch:
        folder = Path(scratch) / "checkout"
        _git("worktree", "add", "--quiet", "--detach", str(folder), revision)
        try:
            shutil.copytree(HERE / "benchmarks", folder / "benchmarks", dirs_exist_ok=True)
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def compare(module: str, revision: str, turns: int, words: Callable[[Path], Sequence[str]]) -> dict[str, Any]:
    """Medians of both versions and their ratios, printed too.

    `module`: of benchmarks; `--once` and `words(scratch)` make it take one turn and print with `answer`.
    """
    commit = _git("rev-parse", "--short", f"{revision}^{{commit}}")
    found: dict[str, list[Figures]] = {"there": [], "here": []}
    with checkout(revision) as other:
        places = {"there": other, "here": HERE}
        for turn in range(turns):
            for name in sorted(places, reverse=turn % 2 == 0):
                with tempfile.TemporaryDirectory() as scratch:
                    figures = run_there(module, places[name], words(Path(scratch)))["figures"]
                found[name].append(figures)
                said = ", ".join(f"{figure} {value:.2f}" for figure, value in figures.items())
                print(f"turn {turn + 1} of {turns}, {name}: {said}", flush=True)
    row: dict[str, Any] = {"against": commit, "turns": turns, "all": found, "medians": {}}
    for figure in found["here"][0]:
        there, here = (statistics.median(each[figure] for each in found[name]) for name in ("there", "here"))
        row["medians"][figure] = {"there": there, "here": here, "ratio": here / there}
        print(f"against {commit}: {figure} {there:.2f} there, {here:.2f} here, ratio {here / there:.3f}")
    return row


def run_segment(config: Any) -> int:
    """The job of the version that takes the turn, under the name that it has there."""
    try:
        from vidseg_core.pipeline import segment_job as module
    except ImportError:
        module = importlib.import_module("vidseg_core.pipeline.job")
    return module.run_segment(config)


def answer(figures: Figures) -> None:
    """What the process of a turn prints last."""
    import vidseg_core

    code = str(Path(vidseg_core.__file__).resolve().parents[1])
    print("\n" + json.dumps({"code": code, "figures": dict(figures)}), flush=True)


def run_there(module: str, place: Path, words: Sequence[str], *, quiet: bool = True) -> dict[str, Any]:
    """What `module --once` says last, run with the code of the checkout `place` by a process of its own.

    Unless `quiet`, what it writes on standard error is seen as it comes.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, "--once", *words],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
    )
    if done.returncode:
        said = (done.stdout + (done.stderr or ""))[-2000:]
        raise SystemExit(f"{module} with the code of {place} ended with {done.returncode}: {said}")
    said = json.loads(done.stdout.splitlines()[-1])
    if Path(said["code"]) != place.resolve():
        raise SystemExit(f"{module} took the code of {said['code']}, not of {place}")
    return said


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
