"""`tiny-scenes` on generated scenes that it never saw, beside `plain`.

    python -m benchmarks.tiny_scenes [--json FILE]
    python -m benchmarks.tiny_scenes --export FOLDER   # train what the package holds

Training and measured scenes have different seeds, so no shape, path or light of one is in the other. Score:
mean IoU over the classes, labels exact.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from benchmarks.committed import committed, fit, measure
from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import Record
from vidseg_core.models import build_segmenter


def records_of(text: str) -> list[Record]:
    """All frames of the data set that `text` names."""
    dataset = open_dataset(text)
    return [dataset.read(item) for item in dataset.items("train")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--export", type=Path, help="train into this folder, and stop")
    parser.add_argument("--threads", type=int, default=1, help="the figures depend on it in the last digits")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    what = committed("tiny-scenes")
    if options.export:
        print(fit(what, records_of(what.extra["data"][0]), SCENE_CLASSES, options.export))
        return
    measured = records_of(what.extra["val"][0])
    table = {}
    for name in ("tiny-scenes", "plain"):
        matrix = measure(build_segmenter(name), measured, len(SCENE_CLASSES))
        table[name] = {"iou": matrix.iou().tolist(), "mean": matrix.mean_iou()}
        cells = "".join(f"{iou:12.3f}" for iou in matrix.iou())
        print(f"{name:12s}{cells}{matrix.mean_iou():8.3f}")
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
