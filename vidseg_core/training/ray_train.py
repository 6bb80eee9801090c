"""The segmenter's loop on Ray Train: each worker builds the same net, takes its share of each batch's slots,
and goes on from the run's own checkpoint, which the first worker writes. See `ray_group`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.kit.device import cluster_device
from vidseg_core.models.trainable import trainable_net
from vidseg_core.store.errors import WriteError
from vidseg_core.training.checkpoint import CheckpointError, DamagedCheckpoint
from vidseg_core.training.data import TrainingData
from vidseg_core.training.group import ProcessGroup, Solo
from vidseg_core.training.loop import LoopOptions, Outcome, Row, TrainingError, train
from vidseg_core.training.ray_group import GroupLayout, answer, run_group, teller, worker_device
from vidseg_core.training.ray_loader import Loading, ray_batches
from vidseg_core.training.validate import Validation

KEPT_FRAMES = 64
"""Validation frames that a worker keeps in memory."""
EXPLAINED: dict[str, type[Exception]] = {
    cls.__name__: cls for cls in (TrainingError, DatasetError, CheckpointError, DamagedCheckpoint, WriteError)
}


@dataclass(frozen=True, kw_only=True)
class WorkerJob:
    """What each worker is told."""

    config: TrainSegmenterConfig
    data: TrainingData
    device: str
    loading: Loading
    fingerprint: str
    class_weights: tuple[float, ...] | None


def fit(job: WorkerJob, worker_cpus: float, watch: Callable[[Row], None]) -> Outcome:
    """Train on the Ray that is up; `watch` is called with each new row of the curve.

    Raises what the loop raises, and `ClusterError` when workers died too often.
    """
    config = job.config
    layout = GroupLayout(
        folder=Path(config.output),
        workers=config.workers,
        cpus=worker_cpus,
        gpu=job.device == "cuda",
        max_failures=config.max_failures,
    )
    return Outcome(**run_group(train_worker, job, layout, EXPLAINED, watch))


def train_worker(loop_config: dict[str, Any]) -> dict[str, Any]:
    """What each worker runs; returns the outcome, or what explains its lack."""
    import ray.train

    job: WorkerJob = loop_config["job"]
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(job.config.threads)
    device = worker_device(job.device)
    group = ProcessGroup(device) if size > 1 else Solo()
    return answer(lambda: asdict(_train(job, device, group, rank, size)), EXPLAINED)


def _train(job: WorkerJob, device: torch.device, group: Solo, rank: int, size: int) -> Outcome:
    config, data = job.config, job.data
    net = trainable_net(
        config.segmenter, class_names=data.class_names, seed=config.seed, weights=config.weights
    )
    training_set, batch = data.training_set(config), config.recipe.batch
    slots = range(rank * batch // size, (rank + 1) * batch // size)
    validation = None
    if data.validation:
        validation = Validation(data.validation, len(data.class_names), keep=KEPT_FRAMES)
    return train(
        net,
        lambda start: ray_batches(training_set, start, config.recipe.steps, slots, job.loading),
        loop_options(config, device=str(device), weights=job.class_weights, fingerprint=job.fingerprint),
        validation=validation,
        group=group,
        watch=teller(Path(config.output).resolve()) if rank == 0 else None,
    )


def loop_options(
    config: TrainSegmenterConfig, *, device: str, weights: tuple[float, ...] | None, fingerprint: str
) -> LoopOptions:
    """The loop's part of the configuration."""
    return LoopOptions(
        recipe=config.recipe,
        folder=Path(config.output).resolve(),
        seed=config.seed,
        device=device,
        val_every=config.val_every,
        save_every=config.save_every,
        log_every=config.log_every,
        class_weights=weights,
        mixed_precision=config.mixed_precision,
        fingerprint=fingerprint,
    )


def lay_out(config: TrainSegmenterConfig) -> tuple[str, float, Loading]:
    """Device, CPUs of a worker, and loading, for the cluster that Ray is connected to.

    Half of a small machine is left to the data tasks, so that they can run at all beside the workers.
    """
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 1.0), resources.get("GPU", 0.0)
    device = cluster_device(config.device, gpus, config.workers)
    wanted = float(config.threads)
    share = min(wanted, cpus / (2 * config.workers))
    share = share if share >= 1 else round(share, 2)
    left = (cpus - share * config.workers) / config.workers
    task_cpus = 1.0 if left >= 1 else max(0.01, round(left, 2))
    return device, share, Loading(tasks=config.loaders or max(1, int(left)), cpus=task_cpus)
