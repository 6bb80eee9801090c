"""A group of training workers on Ray Train, replaced as a whole when one of them dies; the same for all nets.

Model: every worker gets the same job and its own `Member`; what is made is in the run's folder, written by
the first worker. What can be explained (a loss that is not finite, an unreadable frame, a full disk) is no
death: its name and message are returned, not retried. Rows of the curve come by a growing file in the folder.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import uuid
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from vidseg_core.config.words import count
from vidseg_core.datasets.records import DatasetError
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.models.policy_trunk import PolicyError
from vidseg_core.store.errors import WriteError
from vidseg_core.training.attempt import TrainingError, Watch
from vidseg_core.training.checkpoint import CheckpointError, DamagedCheckpoint, Standing
from vidseg_core.training.driver import Run, Training
from vidseg_core.training.group import ProcessGroup, Solo

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

PROGRESS = "progress.jsonl"
"""One line for each new point of the curve, for whoever watches the run."""
RAY_FOLDER = "_ray"
MOST_STARTS = 3
"""So often a group of workers that cannot be started is tried again; Ray would try for ever."""
EXPLAINED: dict[str, type[Exception]] = {
    cls.__name__: cls
    for cls in (
        CheckpointError,
        DamagedCheckpoint,
        DatasetError,
        EpisodeError,
        PolicyError,
        TrainingError,
        WriteError,
    )
}


@dataclass(frozen=True, kw_only=True)
class GroupLayout:
    """The workers of a group."""

    folder: Path
    """The run's output."""
    workers: int
    threads: int
    """CPU threads of each."""
    cpus: float
    """CPUs that Ray sets aside for each worker."""
    device: str
    """`cuda`: each has a GPU of its own."""
    max_failures: int


@dataclass(frozen=True, kw_only=True)
class Member:
    """One worker, as its work sees it."""

    group: Solo
    device: torch.device
    watch: Watch | None
    """What the first worker calls with each row of the curve."""


class Job(Protocol):
    """What each worker gets."""

    def work(self, member: Member) -> None:
        """What each worker does with it."""
        ...


class GroupTraining(Training):
    """A training whose steps are done by a group of workers; `config` has what says so (see `_lay_out`)."""

    share: ClassVar[float] = 1.0
    """Of the CPUs that the workers may take."""

    @abstractmethod
    def job(self, run: Run, layout: GroupLayout) -> Job:
        """What the workers get; Ray is up."""

    def train(self, run: Run) -> Standing:
        from vidseg_core.kit.ray_session import ray_session

        config = self.config
        with ray_session(config, self.report):
            layout = self._lay_out(run)
            workers, lines = count(config.workers, "worker"), f"{config.log_every:,} {self.unit}(s)"
            self.report.say(f"training with {workers} on {layout.device}; a line every {lines}")
            run_group(self.job(run, layout), layout, self.watch(run))
        return run.saved()

    def _lay_out(self, run: Run) -> GroupLayout:
        """The workers on the Ray that is up; `ClusterError` for a device that it does not have."""
        import ray

        from vidseg_core.kit.device import cluster_device

        config, gpus = self.config, ray.cluster_resources().get("GPU", 0.0)
        device = cluster_device(getattr(config, "device", "cpu"), gpus, config.workers)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = [int(node.get("GPU", 0)) if device == "cuda" else config.workers for node in nodes]
        room = _room([node.get("CPU", 0.0) for node in nodes], most, config.workers)
        return GroupLayout(
            folder=run.folder.resolve(),
            workers=config.workers,
            threads=config.threads,
            cpus=max(0.01, math.floor(100 * min(config.threads, self.share * room)) / 100),
            device=device,
            max_failures=config.max_failures,
        )


def _room(cpus: Sequence[float], most: Sequence[int], workers: int) -> float:
    """The most CPUs that each worker can have when none lies on two nodes; node n takes at most `most[n]`."""
    nodes = list(zip(cpus, most, strict=True))
    shares = [have / many for have, limit in nodes for many in range(1, limit + 1) if have]
    fits = (each for each in shares if sum(min(n, int(have / each + 1e-9)) for have, n in nodes) >= workers)
    return max(fits, default=0.0)


def run_group(job: Job, layout: GroupLayout, watch: Watch) -> None:
    """Each worker does its part of `job`; `watch` is called with each row that the first one reports.

    Raises one of `EXPLAINED` if that is what ended a worker, and `ClusterError` when workers died too often.
    """
    from ray.train.v2.api.exceptions import TrainingFailedError

    from vidseg_core.kit.ray_session import ClusterError

    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths mean here what they mean there
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")  # a busy machine takes over 60 s
    try:
        with _Follower(layout.folder / PROGRESS, watch):
            result = _trainer(job, layout).fit()
    except TrainingFailedError as error:
        raise ClusterError(f"training workers failed too often: {_reason(error, layout)}") from error
    finally:
        shutil.rmtree(layout.folder / RAY_FOLDER, ignore_errors=True)
    returned = getattr(result, "return_value", None)
    if not isinstance(returned, dict):
        raise ClusterError("the training workers ended without a result; run the same command again")
    if returned:
        raise EXPLAINED[returned["kind"]](returned["message"])


def _trainer(job: Job, layout: GroupLayout) -> TorchTrainer:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller: Any) -> None:
            """Ctrl-C stays with `interrupts`: Ray Train's handler ends the process as if all were well."""

    on_gpu = layout.device == "cuda"
    return Trainer(
        _worker,
        train_loop_config={"job": job, "layout": layout},
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=layout.workers,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": layout.cpus} | ({"GPU": 1.0} if on_gpu else {}),
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(layout.folder / RAY_FOLDER),
            failure_config=FailureConfig(
                max_failures=layout.max_failures, controller_failure_limit=MOST_STARTS
            ),
        ),
    )


# --- in a worker -------------------------------------------------------------------------------------------


def _worker(given: dict[str, Any]) -> dict[str, str]:
    """What each worker runs; returns nothing, or kind and message of what ended it."""
    import ray.train

    layout: GroupLayout = given["layout"]
    torch.set_num_threads(layout.threads)
    device = _device(layout.device)
    group = ProcessGroup(device) if ray.train.get_context().get_world_size() > 1 else Solo()
    member = Member(
        group=group, device=device, watch=_appends(layout.folder / PROGRESS) if group.rank == 0 else None
    )
    try:
        given["job"].work(member)
    except tuple(EXPLAINED.values()) as error:
        kind = next(cls.__name__ for cls in type(error).__mro__ if cls.__name__ in EXPLAINED)
        return {"kind": kind, "message": str(error)}
    return {}


def _device(device: str) -> torch.device:
    """Where this worker's net runs."""
    if device == "cpu":
        return torch.device("cpu")
    from ray.train.torch import get_device

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS wants for equal sums
    torch.use_deterministic_algorithms(True, warn_only=True)
    found = get_device()
    return found if isinstance(found, torch.device) else found[0]


def _appends(path: Path) -> Watch:
    """Adds each row to the file; a full disk loses the row, not the run."""

    def append(row: Any) -> None:
        with suppress(OSError), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    return append


# --- in the driver -----------------------------------------------------------------------------------------


def _reason(error: Exception, layout: object) -> str:
    """The last line of what a worker said; what Ray's memory monitor says, in a sentence."""
    from vidseg_core.kit.explain import is_kill, killed

    if is_kill(str(error)):
        return killed(str(error), layout)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class _Follower:
    """Reads a growing file of rows while the block runs, and hands each new row over."""

    def __init__(self, path: Path, watch: Watch) -> None:
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
    """The lines after byte `start` that are finished."""
    if path.is_file():
        with open(path, "rb") as file:
            file.seek(start)
            yield from (line for line in file if line.endswith(b"\n"))
