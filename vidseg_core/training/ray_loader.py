"""Samples through Ray Data: from (step, slot) to batches, in order, read and varied in tasks.

Model: a worker's samples are rows `(step, slot)` in the order of training; tasks turn blocks of rows into
pictures, the executor keeps the order. Invariant: the batches are those of `TrainingSet.batches`, byte for
byte, whatever the number of tasks, and whichever of them were run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import ray
import ray.data
import torch

from vidseg_core.datasets.records import DatasetError
from vidseg_core.training.neighbours import COUNT
from vidseg_core.training.ray_group import GroupLayout
from vidseg_core.training.samples import Batch, Framed, Near, Sample, TrainingSet

CHUNK_STEPS = 1000
"""Steps that one execution of Ray Data covers; the plan of a run of any length stays small."""
BLOCK_FRAMES = 32
"""Frames that a task makes, about, neighbours included."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How many tasks read for one worker, and what each asks of Ray."""

    tasks: int
    cpus: float


def loading_beside(layout: GroupLayout, loaders: int) -> Loading:
    """What the workers leave of the CPUs. `loaders`: tasks for each worker; 0: as many as fit."""
    cpus = ray.cluster_resources().get("CPU", 1.0)
    left = (cpus - layout.cpus * layout.workers) / layout.workers
    return Loading(tasks=loaders or max(1, int(left)), cpus=1.0 if left >= 1 else max(0.01, round(left, 2)))


def ray_batches(
    training_set: TrainingSet, start: int, stop: int, slots: Sequence[int], loading: Loading
) -> Iterator[Batch]:
    """One batch for each step of `start..stop-1`, of these slots; tasks run ahead of it."""
    _set_context()
    shared = ray.put(training_set)
    for first in range(start, stop, CHUNK_STEPS):
        rows = [(step, slot) for step in range(first, min(stop, first + CHUNK_STEPS)) for slot in slots]
        blocks = blocks_of(len(rows), batch=len(slots), frames=1 + COUNT if training_set.gap else 1)
        yield from _chunk(shared, rows, len(slots), blocks, loading)


def blocks_of(samples: int, *, batch: int, frames: int) -> int:
    """Into how many tasks samples of so many frames each are divided; each makes a batch or more."""
    return -(-samples // max(batch, BLOCK_FRAMES // frames))


def _chunk(
    shared: ray.ObjectRef, rows: Sequence[tuple[int, int]], batch: int, blocks: int, loading: Loading
) -> Iterator[Batch]:
    dataset = ray.data.from_items(
        [{"step": step, "slot": slot} for step, slot in rows], override_num_blocks=blocks
    ).map_batches(
        lambda block: _read(shared, block),
        batch_size=None,
        num_cpus=loading.cpus,
        concurrency=loading.tasks,
    )
    for found in dataset.iter_batches(batch_size=batch, batch_format="numpy", prefetch_batches=2):
        yield _batch(found)


def _read(shared: ray.ObjectRef, block: Any) -> dict[str, np.ndarray]:
    """In a task: the samples of a block of rows.

    What cannot be read travels as a text: an exception would lose its kind on the way through Ray.
    """
    training_set = _training_set(shared)
    pairs = zip(block["step"].tolist(), block["slot"].tolist(), strict=True)
    found = [_sample(training_set, step, slot) for step, slot in pairs]
    samples = [sample for sample, _ in found]
    columns = {
        "problem": np.array([problem for _, problem in found], dtype=object),
        "frames": np.stack([sample.frame_3HW for sample in samples]),
        "labels": np.stack([sample.labels_HW.astype(np.uint8) for sample in samples]),
        "video_id": np.array([sample.name[0] for sample in samples], dtype=object),
        "frame_index": np.array([sample.name[1] for sample in samples], dtype=np.int64),
    }
    nears = [sample.near for sample in samples if sample.near is not None]
    framed = [sample.framed for sample in samples if sample.framed is not None]
    if framed:
        columns |= {
            "size": np.stack([each.size_2 for each in framed]),
            "whole": np.array([each.whole for each in framed]),
        }
    return columns | (_columns_of(nears) if nears else {})


def _columns_of(nears: Sequence[Near]) -> dict[str, np.ndarray]:
    frames, labels, found = zip(*nears, strict=True)
    return {
        "near_frames": np.stack(frames),
        "near_labels": np.stack(labels).astype(np.uint8),
        "near_found": np.array(found),
    }


def _sample(training_set: TrainingSet, step: int, slot: int) -> tuple[Sample, str]:
    """A sample and an empty text, or a blank one and what is wrong."""
    try:
        return training_set.sample(step, slot), ""
    except DatasetError as problem:
        side = training_set.crop
        frame_3HW, labels_HW = np.zeros((3, side, side), np.float32), np.zeros((side, side), np.int64)
        near = Near(np.stack([frame_3HW] * COUNT), np.stack([labels_HW] * COUNT), False)
        framed = Framed(np.array([side, side], np.int64), True) if training_set.in_regions else None
        blank = Sample(frame_3HW, labels_HW, ("", -1), near if training_set.gap else None, framed)
        return blank, str(problem) or "unreadable"


@lru_cache(maxsize=1)
def _training_set(shared: ray.ObjectRef) -> TrainingSet:
    """Fetched once by each process; data sets keep what they have opened."""
    return ray.get(shared)


def _batch(found: Any) -> Batch:
    """Copied out of shared memory: tensors that start at odd addresses meet other CPU kernels.

    `DatasetError` for the first sample that could not be read.
    """
    problems = [text for text in found["problem"].tolist() if text]
    if problems:
        raise DatasetError(problems[0])
    names = zip(found["video_id"].tolist(), found["frame_index"].tolist(), strict=True)
    return Batch(
        frames_B3HW=torch.tensor(found["frames"]),
        labels_BHW=torch.tensor(found["labels"]).long(),
        ids=tuple((str(video_id), int(frame)) for video_id, frame in names),
        near=_near(found) if "near_found" in found else None,
        framed=Framed(torch.tensor(found["size"]), torch.tensor(found["whole"])) if "size" in found else None,
    )


def _near(found: Any) -> Near:
    labels = torch.tensor(found["near_labels"]).long()
    return Near(torch.tensor(found["near_frames"]), labels, torch.tensor(found["near_found"]))


def _set_context() -> None:
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
