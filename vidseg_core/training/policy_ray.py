"""The policy's loop on Ray Train: every worker walks its share of each batch (see `ray_group`). The tables
lie once in Ray's object store; all workers on a machine look at the same memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import ray
import torch

from vidseg_core.episodes.table import EpisodeError
from vidseg_core.episodes.table_set import TableSet
from vidseg_core.models.policy_trunk import PolicyError
from vidseg_core.store.errors import WriteError
from vidseg_core.training.checkpoint import CheckpointError, DamagedCheckpoint
from vidseg_core.training.group import ProcessGroup, Solo
from vidseg_core.training.loop import TrainingError
from vidseg_core.training.policy_loop import PolicyOptions, PolicyOutcome, Row, train_policy
from vidseg_core.training.ray_group import GroupLayout, answer, run_group, teller

EXPLAINED: dict[str, type[Exception]] = {
    cls.__name__: cls
    for cls in (TrainingError, EpisodeError, PolicyError, CheckpointError, DamagedCheckpoint, WriteError)
}


@dataclass(frozen=True, kw_only=True)
class PolicyJob:
    """What each worker is told; the tables come as references into Ray's object store."""

    tables: Any
    validation: Any
    options: PolicyOptions
    threads: int


def fit_policy(
    tables: TableSet,
    validation: TableSet | None,
    options: PolicyOptions,
    *,
    workers: int,
    threads: int,
    max_failures: int,
    watch: Callable[[Row], None],
) -> PolicyOutcome:
    """Train on the Ray that is up. Raises what the loop raises, and `ClusterError` when workers died too
    often."""
    layout = GroupLayout(
        folder=options.folder,
        workers=workers,
        cpus=min(1.0, ray.cluster_resources().get("CPU", 1.0) / workers),
        gpu=False,
        max_failures=max_failures,
    )
    held = ray.put(tables), None if validation is None else ray.put(validation)
    job = PolicyJob(tables=held[0], validation=held[1], options=options, threads=threads)
    return PolicyOutcome(**run_group(policy_worker, job, layout, EXPLAINED, watch))


def policy_worker(loop_config: dict[str, Any]) -> dict[str, Any]:
    """What each worker runs; returns the outcome, or what explains its lack."""
    import ray.train

    job: PolicyJob = loop_config["job"]
    size = ray.train.get_context().get_world_size()
    torch.set_num_threads(job.threads)
    group = ProcessGroup(torch.device("cpu")) if size > 1 else Solo()
    tables: Any = ray.get(job.tables)
    validation: Any = None if job.validation is None else ray.get(job.validation)
    watch = teller(job.options.folder) if group.rank == 0 else None
    return answer(
        lambda: asdict(train_policy(tables, validation, job.options, group=group, watch=watch)), EXPLAINED
    )
