"""Evaluations small enough for tests: drawn scenes, every task in this process."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidseg_core.config.build_episodes import BuildEpisodesConfig, TablePropagationConfig
from vidseg_core.config.evaluate import EvaluateConfig
from vidseg_core.config.segment import PropagationConfig
from vidseg_core.episodes.episodes_job import build_row
from vidseg_core.episodes.making import claim_set, make_builder
from vidseg_core.episodes.sources import class_names, dataset_units, in_regions
from vidseg_core.evaluation.bench import make_bench
from vidseg_core.evaluation.cells import claim_evaluation, list_cells
from vidseg_core.evaluation.clips import clips_of
from vidseg_core.evaluation.ending import fingerprint, finish
from vidseg_core.evaluation.plan import chunks, plan
from vidseg_core.evaluation.tasks import run_task
from vidseg_core.kit.progress import Reporter
from vidseg_core.store import open_store

SCENES = "scenes:videos=2,frames=14,height=48,width=64"

SMALL = PropagationConfig(sides="one", flow_size=64)


def config(output: Path | str, **options: Any) -> EvaluateConfig:
    defaults: dict[str, Any] = {
        "data": (SCENES,),
        "methods": ("fixed:interval=5",),
        "propagation": SMALL,
        "segmenter": "plain",
    }
    return EvaluateConfig(output=str(output), **(defaults | options))


def evaluate_here(settings: EvaluateConfig) -> tuple[int, list[dict[str, Any]], str]:
    """As `run_evaluate`, every task in this process: exit code, rows put aside, what was said."""
    store, bench = open_store(settings.output), make_bench(settings, "cpu")
    store.check_writable()
    claim_evaluation(store, fingerprint(settings, bench))
    cells = plan(clips_of(settings), settings.parsed_methods())
    todo = [cell for cell in cells if cell.key not in list_cells(store)]
    bad = [row for task in chunks(todo, 2, asks_net=True) for row in run_task(settings, task, "cpu")]
    text = io.StringIO()
    code = finish(settings, store, bench, cells, bad, Reporter("text", text))
    return code, bad, text.getvalue()


def davis(folder: Path, name: str, labels: list[np.ndarray]) -> None:
    for kind in ("frames", "labels"):
        (folder / name / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, labels_HW in enumerate(labels):
        picture = cv2.blur(rng.integers(0, 256, (*labels_HW.shape, 3), dtype=np.uint8), (5, 5))
        cv2.imwrite(str(folder / name / "frames" / f"{number:05d}.jpg"), picture)
        cv2.imwrite(str(folder / name / "labels" / f"{number:05d}.png"), labels_HW * 255)


def small_tables(folder: Path, **options: Any) -> Path:
    """A table of the first scene, labels as the net."""
    options = {"propagation": TablePropagationConfig(flow_size=64)} | options
    build = BuildEpisodesConfig(
        data=(SCENES,),
        output=str(folder),
        limit=1,
        horizon=8,
        min_frames=8,
        segment_frames=0,
        **options,
    )
    claim_set(open_store(folder), make_builder(build, class_names(build), "cpu").fingerprint)
    for unit in in_regions(dataset_units(build), build.regions):
        build_row(asdict(unit), build, class_names(build), "cpu")
    return folder
