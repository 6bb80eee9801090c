"""The flow net's loop on Ray Train: every worker draws and judges its share of each step's pairs (see
`ray_group`). The clips lie once in Ray's object store; all workers on a machine look at the same memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import ray
import torch

from vidseg_core.config.train_flow import TrainFlowConfig
from vidseg_core.kit.device import cluster_device
from vidseg_core.models.flow import build_flow_net
from vidseg_core.models.flow.registry import weights_file
from vidseg_core.models.protocol import Segmenter
from vidseg_core.models.registry import build_segmenter
from vidseg_core.store.atomic import write_whole
from vidseg_core.store.errors import WriteError
from vidseg_core.training.checkpoint import CheckpointError, DamagedCheckpoint
from vidseg_core.training.flow import FlowLoopOptions, FlowTrainingError, train_flow
from vidseg_core.training.flow_clips import FlowClip
from vidseg_core.training.group import ProcessGroup, Solo
from vidseg_core.training.ray_group import GroupLayout, answer, run_group, teller, worker_device

LAST = "last.safetensors"
EXPLAINED: dict[str, type[Exception]] = {
    cls.__name__: cls for cls in (FlowTrainingError, CheckpointError, DamagedCheckpoint, WriteError)
}


@dataclass(frozen=True, kw_only=True)
class FlowJob:
    """What each worker is told."""

    config: TrainFlowConfig
    options: FlowLoopOptions
    scale: tuple[str, int] | None
    """Level and channels of the scale field."""
    device: str
    clips: tuple[Any, ...]
    """References into Ray's object store, one for each clip; within a tuple they are not fetched early."""


def fit_flow(
    config: TrainFlowConfig,
    clips: Sequence[FlowClip],
    options: FlowLoopOptions,
    *,
    scale: tuple[str, int] | None,
    watch: Callable[[dict[str, Any]], None],
) -> None:
    """Train on the Ray that is up, until `last.safetensors` is written.

    Raises what the loop raises, and `ClusterError` when workers died too often.
    """
    device, share = _lay_out(config)
    layout = GroupLayout(
        folder=options.folder,
        workers=config.workers,
        cpus=share,
        gpu=device == "cuda",
        max_failures=config.max_failures,
    )
    held = tuple(ray.put(clip) for clip in clips)
    job = FlowJob(config=config, options=options, scale=scale, device=device, clips=held)
    run_group(flow_worker, job, layout, EXPLAINED, watch)


def flow_worker(loop_config: dict[str, Any]) -> dict[str, Any]:
    """What each worker runs; returns an empty outcome, or what explains its lack."""
    import ray.train

    job: FlowJob = loop_config["job"]
    size = ray.train.get_context().get_world_size()
    torch.set_num_threads(job.config.threads)
    cv2.setNumThreads(1)
    device = worker_device(job.device)
    group = ProcessGroup(device) if size > 1 else Solo()
    return answer(lambda: _train(job, device, group), EXPLAINED)


def _train(job: FlowJob, device: torch.device, group: Solo) -> None:
    config, options = job.config, replace(job.options, device=str(device))
    built = build_flow_net(config.net, config.weights, seed=config.seed, bare=True, scale=job.scale)
    state = train_flow(
        built.net,
        ray.get(list(job.clips)),
        config.recipe,
        options,
        segmenter=frozen_segmenter(config, str(device)),
        group=group,
        watch=teller(options.folder) if group.rank == 0 else None,
    )
    if group.rank == 0:
        data = weights_file(state, config.net, step=config.recipe.steps, seed=config.seed)
        write_whole(options.folder / LAST, data)


def frozen_segmenter(config: TrainFlowConfig, device: str) -> Segmenter | None:
    """N, whose scores are warped; None: the labels stand for its output."""
    if config.segmenter is None:
        return None
    return build_segmenter(
        config.segmenter, device=device, weights=config.segmenter_weights, seed=config.seed
    )


def _lay_out(config: TrainFlowConfig) -> tuple[str, float]:
    """Device and CPUs of a worker, for the cluster that Ray is connected to."""
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 1.0), resources.get("GPU", 0.0)
    device = cluster_device(config.device, gpus, config.workers)
    return device, min(float(config.threads), cpus / config.workers)
