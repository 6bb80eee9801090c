"""What `match` takes a frame, by the classes that it is asked about, beside flow.

    python -m benchmarks.match_cost [--sizes 144x256 256x256] [--classes 2 5 11] [--turns 5] [--json FILE]

A drawn scene, labels stand in for N, a key every 12, two sides, one thread, everything
through `Engine.step`. Classes of the scene differ by where they are until there are enough. `flow` is
DIS and warping from both sides; `match` the net in every gap; `checked` where a self-check chooses, which
predicts left-out keys, too. ms: processor time a frame that is no key, median over turns; in a turn all are
measured one after another, so that what else the machine does meets all of them. Beside: less flow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.match import filled
from benchmarks.two_sided import VOID, Clip
from vidseg_core.datasets.scene_config import SceneConfig
from vidseg_core.datasets.scenes import Scene
from vidseg_core.propagation import FlowWarp
from vidseg_core.propagation.match import Match

INTERVAL, FRAMES = 12, 37
"""Keys, and frames of a clip: three gaps, so that a self-check has keys to leave out."""
Row = dict[str, Any]


def scene(size: tuple[int, int]) -> Clip:
    """A drawn scene of this size (H, W), many shapes in it."""
    options = SceneConfig(height=size[0], width=size[1], frames=FRAMES, seed=9001, cuts=0, shapes=10)
    pictures, labels = zip(*((f.frame_HW3, f.labels_HW) for f in Scene(options)), strict=True)
    return Clip(name="drawn", classes=0, frames=list(pictures), labels=list(labels))


def with_classes(clip: Clip, wanted: int) -> Clip:
    """The clip with so many classes: those of shapes on the right count as others, then some as one."""
    labels = [split(labels_HW, wanted) for labels_HW in clip.labels]
    return replace(clip, classes=wanted, labels=labels)


def split(labels_HW: np.ndarray, wanted: int) -> np.ndarray:
    """Class ids 0 (what is no shape) to `wanted` - 1, 255 as it is."""
    shapes = int(labels_HW[labels_HW != VOID].max(initial=0))
    right_W = np.arange(labels_HW.shape[1]) >= labels_HW.shape[1] // 2
    numbers_HW = labels_HW.astype(np.int64) + 5 * right_W[None]
    others_HW = 1 + (numbers_HW - 1) % max(wanted - 1, 1)
    found_HW = np.where(labels_HW == 0, 0, others_HW)
    return np.where(labels_HW == VOID, VOID, found_HW).astype(np.uint8) if shapes else labels_HW


def measure(clip: Clip, turns: int) -> Iterator[Row]:
    """A row for each way."""
    ways = {"flow": FlowWarp(), "match": Match(), "checked": Match(self_check=True)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    between = sum(1 for number in range(len(clip.frames)) if number % INTERVAL)
    for turn in range(turns + 1):
        for name, propagator in ways.items():
            started = time.process_time()
            filled(clip, INTERVAL, "two", propagator)
            if turn:  # the first one warms up
                seconds[name].append((time.process_time() - started) / between)
    ms = {name: 1e3 * statistics.median(found) for name, found in seconds.items()}
    for name, value in ms.items():
        height, width = clip.frames[0].shape[:2]
        beside = value - ms["flow"]
        yield {
            "size": f"{height}x{width}",
            "classes": clip.classes,
            "way": name,
            "ms": value,
            "beside": beside,
        }


def all_rows(sizes: Sequence[str], classes: Sequence[int], turns: int) -> Iterator[Row]:
    for size in sizes:
        height, width = map(int, size.split("x"))
        clip = scene((height, width))
        for wanted in classes:
            yield from measure(with_classes(clip, wanted), turns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["144x256", "256x256"], help="HEIGHTxWIDTH")
    parser.add_argument("--classes", nargs="+", type=int, default=[2, 5, 11], help="2 to 11")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows: list[Row] = []
    print("size     classes way       ms  beside flow", flush=True)
    for row in all_rows(options.sizes, options.classes, options.turns):
        rows.append(row)
        print(
            f"{row['size']:8} {row['classes']:7} {row['way']:8} {row['ms']:5.1f}  {row['beside']:+5.1f}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
