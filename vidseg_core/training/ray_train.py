"""The loop on Ray Train: a group of workers, replaced as a whole when one of them dies.

Model: every worker builds the same net, takes its share of each batch's slots, and goes on from the run's own
checkpoint, which the first worker writes. Ray Train starts the group, notices a death and starts it again.
What can be explained (a loss that is not finite, an unreadable frame, a full disk) is no death: it is
returned, not retried.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.datasets.records import DatasetError
from vidseg_core.models.trainable import trainable_net
from vidseg_core.pipeline.ray_session import ClusterError
from vidseg_core.training.checkpoint import CheckpointError, SaveError
from vidseg_core.training.data import TrainingData
from vidseg_core.training.group import ProcessGroup, Solo
from vidseg_core.training.loop import LoopOptions, Outcome, Row, TrainingError, train
from vidseg_core.training.ray_loader import Loading, ray_batches
from vidseg_core.training.validate import Validation

PROGRESS = "progress.jsonl"
"""One line for each new point of the curve, for whoever watches the run."""
RAY_FOLDER = "_ray"
KEPT_FRAMES = 64
"""Validation frames that a worker keeps in memory."""
EXPLAINED: dict[str, type[Exception]] = {
    cls.__name__: cls for cls in (TrainingError, DatasetError, CheckpointError, SaveError)
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
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    config, folder = job.config, Path(job.config.output).resolve()
    gpu = job.device == "cuda"
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths mean here what they mean there
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.workers, use_gpu=gpu, resources_per_worker={"CPU": worker_cpus} | _gpu(gpu)
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(folder / RAY_FOLDER),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    try:
        with _own_interrupts(), _Follower(folder / PROGRESS, watch):
            result = trainer.fit()
    except TrainingFailedError as error:
        raise ClusterError(f"training workers failed too often: {_reason(error)}") from error
    finally:
        shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)
    return _outcome(getattr(result, "return_value", None))


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """Ray Train answers Ctrl-C by ending the process as if all were well; here it stays a
    `KeyboardInterrupt`."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def train_worker(loop_config: dict[str, Any]) -> dict[str, Any]:
    """What each worker runs; returns the outcome, or what explains its lack."""
    import ray.train

    job: WorkerJob = loop_config["job"]
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(job.config.threads)
    device = _device(job)
    group = ProcessGroup(device) if size > 1 else Solo()
    try:
        outcome = _train(job, device, group, rank, size)
    except tuple(EXPLAINED.values()) as error:
        return {"kind": type(error).__name__, "message": str(error)}
    return {"outcome": asdict(outcome)}


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
        watch=_teller(Path(config.output).resolve() / PROGRESS) if rank == 0 else None,
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
    if config.device == "cuda" and gpus < config.workers:
        raise ClusterError(
            f"--device cuda: the Ray cluster has {gpus:g} GPU(s) for {config.workers} worker(s)"
        )
    device = "cuda" if config.device != "cpu" and gpus >= config.workers else "cpu"
    wanted = float(config.threads)
    share = min(wanted, cpus / (2 * config.workers))
    share = share if share >= 1 else round(share, 2)
    left = (cpus - share * config.workers) / config.workers
    task_cpus = 1.0 if left >= 1 else max(0.01, round(left, 2))
    return device, share, Loading(tasks=config.loaders or max(1, int(left)), cpus=task_cpus)


def _gpu(gpu: bool) -> dict[str, float]:
    return {"GPU": 1.0} if gpu else {}


def _device(job: WorkerJob) -> torch.device:
    if job.device == "cpu":
        return torch.device("cpu")
    from ray.train.torch import get_device

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS wants for equal sums
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = get_device()
    return device if isinstance(device, torch.device) else device[0]


def _outcome(returned: Any) -> Outcome:
    if not isinstance(returned, dict):
        raise ClusterError("the training workers ended without a result; run the same command again")
    if "outcome" in returned:
        return Outcome(**returned["outcome"])
    raise EXPLAINED[returned["kind"]](returned["message"])


def _reason(error: Exception) -> str:
    """The last line of what a worker said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _teller(path: Path) -> Callable[[Row], None]:
    def tell(row: Row) -> None:
        with suppress(OSError), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    return tell


class _Follower:
    """Reads a growing file of rows while the block runs, and hands each new row over."""

    def __init__(self, path: Path, watch: Callable[[Row], None]) -> None:
        self._path, self._watch = path, watch
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        path.unlink(missing_ok=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        shown, ends = 0, False
        while not ends:
            ends = self._done.wait(0.5)
            for line in _whole_lines(self._path, shown):
                shown += len(line)
                self._watch(json.loads(line))


def _whole_lines(path: Path, start: int) -> Iterator[bytes]:
    """The lines behind byte `start` that are finished."""
    if path.is_file():
        with open(path, "rb") as file:
            file.seek(start)
            yield from (line for line in file if line.endswith(b"\n"))
