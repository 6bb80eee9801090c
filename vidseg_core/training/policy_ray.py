"""The policy's loop on Ray Train: every worker walks its share of each batch, and one may be killed.

Model: as for `ray_train`. The tables lie once in Ray's object store; all workers on a machine look at the
same memory. What can be explained is returned, not retried.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import ray
import torch

from vidseg_core.episodes.table import EpisodeError
from vidseg_core.episodes.table_set import TableSet
from vidseg_core.models.policy_trunk import PolicyError
from vidseg_core.pipeline.ray_session import ClusterError
from vidseg_core.store.errors import WriteError
from vidseg_core.training.checkpoint import CheckpointError, DamagedCheckpoint
from vidseg_core.training.group import ProcessGroup, Solo
from vidseg_core.training.loop import TrainingError
from vidseg_core.training.policy_loop import PolicyOptions, PolicyOutcome, Row, train_policy
from vidseg_core.training.policy_progress import followed, teller

RAY_FOLDER = "_ray"
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
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    share = min(1.0, ray.cluster_resources().get("CPU", 1.0) / workers)
    held = ray.put(tables), None if validation is None else ray.put(validation)
    job = PolicyJob(tables=held[0], validation=held[1], options=options, threads=threads)
    trainer = TorchTrainer(
        policy_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": share}),
        run_config=RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(options.folder / RAY_FOLDER),
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    )
    try:
        with followed(options.folder, watch):
            result = trainer.fit()
    except TrainingFailedError as error:
        raise ClusterError(f"policy workers failed too often: {_last_line(error)}") from error
    finally:
        shutil.rmtree(options.folder / RAY_FOLDER, ignore_errors=True)
    return _outcome(getattr(result, "return_value", None))


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
    try:
        outcome = train_policy(tables, validation, job.options, group=group, watch=watch)
    except tuple(EXPLAINED.values()) as error:
        return {"kind": type(error).__name__, "message": str(error)}
    return {"outcome": asdict(outcome)}


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _outcome(returned: Any) -> PolicyOutcome:
    if not isinstance(returned, dict):
        raise ClusterError("the policy workers ended without a result; run the same command again")
    if "outcome" in returned:
        return PolicyOutcome(**returned["outcome"])
    raise EXPLAINED[returned["kind"]](returned["message"])
