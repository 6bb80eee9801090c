"""Training throughput, and what share of it is spent waiting for data; two workers against one.

    python -m benchmarks.training [--json FILE] [--data NAME:PATH] [--steps N] [--batch N]
                                  [--segmenter NAME] [--crop PIXELS] [--device cpu|cuda]

The same recipe three times: the plain loop, which reads its own samples in the training process (baseline),
and `train-segmenter` on Ray with one worker and with two. Rates are of the steps after the first third, when
Ray Data and the net have warmed up. The weights of the plain loop and of one worker must be the same; a
difference ends the benchmark with an error. (On a GPU there is no plain loop, and two workers need two GPUs.)
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import pyarrow.parquet as pq
import torch

from vidseg_core.config.recipes import AugmentRecipe, TrainRecipe
from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.kit.progress import Reporter
from vidseg_core.kit.ray_session import ray_session
from vidseg_core.models.trainable import trainable_net
from vidseg_core.store.keys import CURVE_KEY
from vidseg_core.training.data import open_training_data
from vidseg_core.training.loop import LAST, train
from vidseg_core.training.segmenter_job import loop_options, run_train_segmenter

SCENES = "scenes:videos=8,frames=15,height=240,width=320"
AUGMENT: dict[str, Any] = {"rotate": 15.0, "colour": 0.5, "blur": 0.2}
STORE_MB = 500


@dataclass(frozen=True, kw_only=True)
class Row:
    way: str
    workers: int
    steps: int
    images_per_s: float
    data_share: float
    """Share of a worker's time that it waits for its next batch."""
    weights: str
    """Digest of `last.safetensors`."""


def pictures(folder: Path) -> str:
    """Generated scenes as image files, which cost what a data set's files cost; the spec that names them."""
    scenes = open_dataset(SCENES)
    for item in scenes.items("all"):
        record = scenes.read(item)
        assert record.labels_HW is not None
        for kind, picture in (("images", record.frame_HW3[:, :, ::-1]), ("masks", record.labels_HW)):
            path = folder / kind / item.video_id / f"{item.frame_index:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)
    return f"folder:{folder}"


def plain_loop(config: TrainSegmenterConfig) -> list[dict[str, Any]]:
    """The curve of the loop in this process."""
    torch.set_num_threads(config.threads)
    data = open_training_data(config)
    net = trainable_net(config.segmenter, class_names=data.class_names, seed=config.seed)
    samples = data.training_set(config)
    Path(config.output).mkdir(parents=True)
    outcome = train(
        net,
        lambda start: samples.batches(start, config.recipe.steps),
        loop_options(config, weights=None, fingerprint=""),
    )
    return [dict(row) for row in outcome.rows]


def on_ray(config: TrainSegmenterConfig) -> list[dict[str, Any]]:
    """The curve of the command."""
    run_train_segmenter(config, Reporter("text", io.StringIO()))
    return pq.read_table(Path(config.output) / CURVE_KEY).to_pylist()


def measured(way: str, config: TrainSegmenterConfig, rows: list[dict[str, Any]]) -> Row:
    """Rates over the rows after the first third."""
    first = next(row for row in rows if 3 * row["step"] >= config.recipe.steps)
    warm = [row for row in rows if row["step"] > first["step"]]
    seconds, before, waited = warm[-1]["seconds"] - first["seconds"], first["seconds"], 0.0
    for row in warm:
        waited += row["data_share"] * (row["seconds"] - before)
        before = row["seconds"]
    images = (warm[-1]["step"] - first["step"]) * config.recipe.batch
    return Row(
        way=way,
        workers=config.workers,
        steps=config.recipe.steps,
        images_per_s=images / seconds,
        data_share=waited / seconds,
        weights=hashlib.sha256((Path(config.output) / LAST).read_bytes()).hexdigest()[:16],
    )


def show(row: Row, baseline: Row) -> None:
    print(
        f"{row.way:22} {row.images_per_s:8.2f} images/s  {row.images_per_s / baseline.images_per_s:5.2f} x  "
        f"{100 * row.data_share:5.1f} % waiting for data   weights {row.weights}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Training throughput and data-loading share.")
    parser.add_argument("--json", help="write the raw rows to this file")
    parser.add_argument("--data", help="data set to train on, NAME:PATH (generated scenes as PNG files)")
    parser.add_argument("--steps", type=int, default=60, help="steps of each run (60)")
    parser.add_argument("--batch", type=int, default=8, help="samples per step (8)")
    parser.add_argument("--segmenter", default="tiny:24", help="net (tiny:24)")
    parser.add_argument("--crop", type=int, default=192, help="side of the crops, pixels (192)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shared: dict[str, Any] = {
            "data": (options.data or pictures(Path(folder) / "pictures"),),
            "segmenter": options.segmenter,
            "recipe": TrainRecipe(steps=options.steps, batch=options.batch, warmup=options.steps // 10),
            "augment": AugmentRecipe(crop=options.crop, **AUGMENT),
            "device": options.device,
            "log_every": max(1, options.steps // 12),
            "val_every": options.steps,
            "object_store_mb": STORE_MB,
        }
        print(
            f"{options.segmenter}, crop {options.crop}, batch {options.batch}, {os.cpu_count()} CPUs",
            flush=True,
        )
        rows: list[Row] = []
        if options.device == "cpu":
            config = TrainSegmenterConfig(output=f"{folder}/plain", **shared)
            rows.append(measured("plain loop", config, plain_loop(config)))
            show(rows[-1], rows[0])
        with ray_session(TrainSegmenterConfig(output=folder, **shared)):
            for workers in (1, 2):
                config = TrainSegmenterConfig(output=f"{folder}/ray{workers}", workers=workers, **shared)
                rows.append(measured(f"Ray, {workers} worker(s)", config, on_ray(config)))
                show(rows[-1], rows[0])
    if len({row.weights for row in rows if row.workers == 1}) != 1:
        raise SystemExit("error: the plain loop and one worker ended with other weights")
    print("the plain loop and one worker on Ray: the same weights")
    if options.json:
        Path(options.json).write_text(
            json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
