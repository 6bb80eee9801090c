"""A CamVid model from nothing, by the committed recipe, measured on the 15 Hz clip.

    python -m benchmarks.camvid [--steps N] [--export FOLDER] [--weights FILE] [--json FILE] [--data DIR]

Trained on the 367 training frames (1 Hz) without pretrained weights; measured at 480x360 on every frame of
the clip. The clip is a stretch of one of the three drives that the training frames leave out: the nearest of
them is 1.3 seconds away, so the figure is for new moments of known streets. Score: IoU of the 11 classes from
one confusion matrix, void ignored; a class that the clip does not hold is left out of the mean. Baseline
`mean shape`: the most frequent class at each place of the training frames.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.committed import committed, fit, measure, trained
from benchmarks.corpus import data_dir
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import Record
from vidseg_core.metrics import ConfusionMatrix


def mean_shape(training: list[Record], measured: list[Record], classes: int) -> ConfusionMatrix:
    """The baseline's counts: all frames have one size."""
    votes_CHW = np.zeros((classes, *training[0].frame_HW3.shape[:2]), np.int32)
    for record in training:
        votes_CHW += record.labels_HW == np.arange(classes)[:, None, None]
    guess_HW, matrix = votes_CHW.argmax(axis=0).astype(np.uint8), ConfusionMatrix(classes)
    for record in measured:
        assert record.labels_HW is not None
        matrix.update(guess_HW, record.labels_HW)
    return matrix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, help="instead of the recipe's number")
    parser.add_argument("--threads", type=int, default=1, help="the figures depend on it in the last digits")
    parser.add_argument("--export", type=Path, help="folder for weights and checkpoint")
    parser.add_argument("--weights", help="measure these instead of training")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    root = data_dir(options.data)
    if root is None or not (root / "camvid").is_dir():
        raise SystemExit(
            "no CamVid: --data must name a folder with camvid/train_1hz and camvid/clip_0016E5_15hz"
        )
    dataset = open_dataset(f"camvid:{root / 'camvid'}")
    training = [dataset.read(item) for item in dataset.items("train")]
    measured = [dataset.read(item) for item in dataset.items("val")]
    what, names = committed("camvid").with_steps(options.steps), dataset.class_names
    with tempfile.TemporaryDirectory() as scratch:
        weights = options.weights or fit(what, training, names, options.export or Path(scratch))
        net = trained(what, weights)
    rows = {
        "net": measure(net, measured, len(names)),
        "mean shape": mean_shape(training, measured, len(names)),
    }
    print(f"{len(training)} training frames, {len(measured)} measured, {what.recipe.steps} steps")
    print(f"{'':12s}" + "".join(f"{name[:10]:>11s}" for name in names) + f"{'mean':>8s}")
    for name, matrix in rows.items():
        print(f"{name:12s}" + "".join(f"{iou:11.3f}" for iou in matrix.iou()) + f"{matrix.mean_iou():8.3f}")
    if options.json:
        table = {
            name: {"iou": matrix.iou().tolist(), "mean": matrix.mean_iou()} for name, matrix in rows.items()
        }
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
