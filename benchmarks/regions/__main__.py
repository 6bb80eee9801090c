"""Regions with keys of their own: what crops cost a net, what exact schedules win, what real ones keep of it.

    python -m benchmarks.regions PART [--clips NAME ...] [--data DIR] [--json FILE] [--frames N]

| part           | what                                                                               |
|----------------|------------------------------------------------------------------------------------|
| `agreement`    | a net on crops beside the same net on the whole frame, and what its crops cost     |
| `oracle`       | the best keys of each region under one budget of pixels, labels as N               |
| `schedulers`   | schedulers through the engine, labels as N                                         |
| `fidelity`     | the same with `--net` as N, against that net on every whole frame                  |
| `milliseconds` | the same by what is seen around crops, at equal CPU time                           |
| `job`          | frames/s of the whole job with an expensive net, at an equal share of pixels       |
| `learned`      | schedulers that learned on tables of regions, on clips left out, beside exact ones |

Shares of key pixels count overlap. Where a share falls between two schedules (few keys, one price), quality
is interpolated between them. Score: as in `benchmarks.two_sided`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.corpus import data_dir
from benchmarks.regions.agreement import AROUND, OVERLAPS, agreement
from benchmarks.regions.common import (
    NET_SIZE,
    ORACLE_SIZE,
    SHARES,
    Row,
    clips_by_kind,
    clips_of,
    sized,
)
from benchmarks.regions.exact import oracle
from benchmarks.regions.job import FRAMES, jobs, speeds
from benchmarks.regions.job import GRIDS as OF_JOBS
from benchmarks.regions.learned import GRIDS, QUALITIES, gains, learned
from benchmarks.regions.milliseconds import SETTINGS, at_equal_cost, milliseconds
from benchmarks.regions.scheduled import schedulers
from benchmarks.two_sided import Clip

PARTS = ("agreement", "oracle", "schedulers", "fidelity", "milliseconds", "job", "learned")
_MEANT = ("miou", "pixels", "cost")


def rows_of(part: str, clip: Clip, options: argparse.Namespace) -> Iterator[Row]:
    if part == "agreement":
        grids = options.grids or ["2x2", "3x3"]
        shown, net = sized(clip, NET_SIZE, options.frames), options.net or "tiny-face"
        return agreement(shown, net, grids, options.overlaps, options.around, options.weights)
    if part == "oracle":
        return oracle(sized(clip, ORACLE_SIZE, options.frames), options.keep)
    if part == "milliseconds":
        shown, net = sized(clip, NET_SIZE, options.frames), options.net or "tiny-face"
        return milliseconds(shown, net, options.grids, options.schedulers)
    if part == "schedulers":
        return schedulers(sized(clip, ORACLE_SIZE, options.frames), None, options.shares)
    return schedulers(sized(clip, NET_SIZE, options.frames), options.net or "tiny-face", options.shares)


def all_rows(root: Path | None, options: argparse.Namespace) -> Iterator[Row]:
    """Clip by clip; of what learns from clips, all at once."""
    if options.part == "job":
        for share in options.shares:
            grids, frames = options.grids or OF_JOBS, options.frames or FRAMES
            yield from jobs(options.data, grids, share, frames, options.turns)
        return
    if options.part != "learned":
        for clip in clips_of(root, options.clips, options.scenes):
            yield from rows_of(options.part, clip, options)
        return
    yield from learned(
        clips_by_kind(root, options.clips, options.scenes or 73, options.frames),
        options.shares,
        grids=options.grids or GRIDS,
        overlap=options.overlap,
        quality=options.quality,
        kept=options.keep,
    )


def summary(rows: Sequence[Row], options: argparse.Namespace) -> Iterator[str]:
    """What is printed at the end."""
    if options.part == "job":
        yield from speeds(rows)
    elif options.part == "milliseconds":
        yield from at_equal_cost(rows, options.shares)
    else:
        yield from means(rows)
    if options.part == "learned":
        yield from gains(rows)


def means(rows: Sequence[Row]) -> Iterator[str]:
    """The mean over clips of each combination."""
    by: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        names = ("net", "grid", "overlap", "keys", "share")
        by.setdefault(tuple(row[name] for name in names if name in row), []).append(row)
    for case, found in by.items():
        said = [f"{np.mean([row[name] for row in found]):.3f}" for name in _MEANT if name in found[0]]
        yield f"mean of {len(found)} clips  {'  '.join(map(str, case)):44} {'  '.join(said)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--clips", nargs="*", default=[], help="names; none: all")
    parser.add_argument("--scenes", type=int, default=0, help="drawn scenes of so many frames instead")
    parser.add_argument("--net", help="N of agreement, fidelity and milliseconds; default: tiny-face")
    parser.add_argument("--grids", nargs="*", help="of agreement, milliseconds, job and learned")
    parser.add_argument("--overlap", type=int, default=0, help="of learned, pixels of frames of 256")
    parser.add_argument("--overlaps", type=int, nargs="*", default=list(OVERLAPS), help="of agreement")
    parser.add_argument("--around", nargs="*", choices=AROUND, default=list(AROUND), help="of agreement")
    parser.add_argument("--weights", help="of agreement: what the net has on crops, learned on crops")
    parser.add_argument("--quality", choices=tuple(QUALITIES), default="weighted", help="of learned")
    parser.add_argument("--shares", type=float, nargs="*", default=list(SHARES))
    parser.add_argument("--schedulers", nargs="*", choices=tuple(SETTINGS), help="of milliseconds")
    parser.add_argument("--turns", type=int, default=3, help="of job")
    parser.add_argument("--frames", type=int, help="only the first frames of a clip")
    parser.add_argument("--data", help="folder with face, davis2016 and camvid (default: $VIDSEG_DATA)")
    parser.add_argument("--keep", type=Path, help="folder for what oracle and learned count, to go on from")
    parser.add_argument("--json", help="write the raw rows to this file")
    options = parser.parse_args()
    root = data_dir(options.data)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rows: list[Row] = []
    for row in all_rows(root, options):
        rows.append(row)
        shown = (f"{v:.3f}" if isinstance(v, float) else str(v) for k, v in row.items() if k != "points")
        print("  ".join(shown), flush=True)
    print("\n".join(summary(rows, options)))
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
