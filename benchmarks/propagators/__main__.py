"""What fills the frames between keys: every propagator beside the others, on clips left out of training.

    python -m benchmarks.propagators [--data DIR] [--json FILE] [--material scenes face davis ...]
        [--rows NAME ...] [--intervals N ...] [--seeds N ...] [--steps N] [--keep DIR] [--device cuda]
        [--quick]

A material is clips to learn from, clips to be judged on, and a net of CPU size: `tiny-scenes` and `tiny-face`
of the package; for DAVIS and CamVid nets that are trained here, from labels, and so are light nets. That of
`davis_known` has seen the clips judged, too, since 187 pictures make none that knows any others. CamVid's
stills have no neighbours, so its nets learn from them, what fills gaps learns from DAVIS without labels, and
the 15 Hz clip is only judged.
What is learned is learned here, in this process (`train-propagation` does the same on Ray Train).

Every clip goes through the engine with even keys (`--intervals`: 5, 10, 12 and 25 frames). Columns: mIoU
with true labels over all frames, by interval; by frames from the last key (0: the keys themselves), over all
intervals together; pop at keys (interval 12); ms a frame, the net included (interval 12; processor time on a
CPU, one thread). Then how well an expected deviation ranks pairs, for those that have one. `--keep`: what was
trained is kept there, and found again. With several `--seeds`: means, and how far the farthest seed is from
them. Another propagator is another line of `ROWS`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.corpus import data_dir
from benchmarks.propagators.bench import DISTANCES, Bench, Found
from benchmarks.propagators.material import MATERIAL
from benchmarks.propagators.rows import ROWS
from vidseg_core.training.propagation_score import RankScore

INTERVALS = (5, 10, 12, 25)


def heads(intervals: Iterable[int]) -> str:
    return (
        f"{'':<32}"
        + "".join(f"{f'+{distance}':>7}" for distance in DISTANCES)
        + "".join(f"{f'@{interval}':>7}" for interval in intervals)
        + f"{'pop':>8}{'ms':>6}"
    )


def line(found: Sequence[Found]) -> str:
    """Means over seeds; with several, below them how far the farthest seed is from each."""
    numbers = np.array([[*f.by_distance.values(), *f.by_interval.values(), f.pop, f.ms] for f in found])
    means = numbers.mean(0)
    lines = [_cells(found[0].row, means)]
    if len(found) > 1:
        lines.append(_cells("  farthest of the seeds", np.abs(numbers - means).max(0)))
    return "\n".join(lines)


def _cells(title: str, numbers: np.ndarray) -> str:
    *shares, pop, ms = numbers
    cells = [f"{share:7.3f}" for share in shares] + [f"{pop:8.3f}", f"{ms:6.0f}"]
    return f"{title:<32}" + "".join(cell.replace("nan", "  -") for cell in cells)


def one_material(name: str, options: argparse.Namespace, folder: Path) -> tuple[list[Found], list[RankScore]]:
    """All rows of a material, printed."""
    benches = [Bench(name, seed, options, folder) for seed in options.seeds]
    intervals = options.intervals[:1] if options.quick else options.intervals
    chosen = {row: ROWS[row] for row in options.rows}
    found: list[Found] = []
    ranks: list[RankScore] = []
    for row in chosen.values():
        for bench in benches if row.learned else ():
            bench.learner(row)  # what is trained says so before the table begins
    names = ", ".join(clip.name for clip in benches[0].judged)
    print(f"\n{name}, {benches[0].net_spec}, left out: {names}\n{heads(intervals)}", flush=True)
    for title, row in chosen.items():
        varies = row.learned or not benches[0].material.net
        lines = [bench.measure(title, row, intervals) for bench in (benches if varies else benches[:1])]
        print(line(lines), flush=True)
        found += lines
    for title, row in chosen.items():
        expects = row.learned and row.delay is None
        if expects and hasattr(benches[0].parts(row)[1], "expected_deviation"):
            scored = [bench.learner(row) for bench in benches]
            mine = [
                rank
                for (learner, place), bench in zip(scored, benches, strict=True)
                for rank in learner.score(place, bench.judged).ranks
            ]
            print(_ranked(title, mine), flush=True)
            ranks += mine
    return found, ranks


def _ranked(title: str, ranks: Sequence[RankScore]) -> str:
    if not ranks:
        return f"{title}: expects no deviation"
    expected, difference = (
        np.nanmean([getattr(rank, name) for rank in ranks]) for name in ("expected", "difference")
    )
    return (
        f"{title}: rank correlation with what changed: expected deviation {expected:.3f}, "
        f"difference of pictures {difference:.3f}"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="the folder of real material ($VIDSEG_DATA); without one, scenes only")
    parser.add_argument("--material", nargs="+", choices=tuple(MATERIAL))
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--intervals", nargs="+", type=int, default=list(INTERVALS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--keep", type=Path, help="folder in which what was trained is kept")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="30 steps, one interval")
    options = parser.parse_args()
    options.material = options.material or (list(MATERIAL) if data_dir(options.data) else ["scenes"])
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows, ranks = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.material:
            found, ranked = one_material(name, options, options.keep or Path(scratch))
            rows += [asdict(one) for one in found]
            ranks += [{"material": name} | asdict(one) for one in ranked]
            if options.json:  # after each material: a run that is ended leaves those before
                text = json.dumps({"rows": rows, "ranks": ranks}, indent=1)
                options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
