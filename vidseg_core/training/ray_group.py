"""A group of training workers on Ray Train, replaced as a whole when one of them dies: what is the same for
every net.

Model: the driver hands one job to every worker and gets one plain answer back: an outcome, or the name and
the message of what explains its lack. What can be explained (a loss that is not finite, an unreadable frame,
a full disk) is no death: it is returned, not retried. Rows of the curve come by a growing file in the output.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vidseg_core.kit.explain import is_kill, killed
from vidseg_core.kit.ray_session import ClusterError

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

PROGRESS = "progress.jsonl"
"""One line for each new point of the curve, for whoever watches the run."""
RAY_FOLDER = "_ray"
MOST_STARTS = 3
"""So often a group of workers that cannot be started is tried again; Ray would try for ever."""
Explained = Mapping[str, type[Exception]]


@dataclass(frozen=True, kw_only=True)
class GroupLayout:
    """The workers of a group."""

    folder: Path
    """The run's output."""
    workers: int
    cpus: float
    """CPUs that Ray sets aside for each worker."""
    gpu: bool
    max_failures: int


def run_group(
    worker: Callable[[dict[str, Any]], dict[str, Any]],
    job: Any,
    layout: GroupLayout,
    explained: Explained,
    watch: Callable[[Any], None],
) -> Any:
    """The outcome of `worker({"job": job})`; `watch` is called with each row that a worker tells.

    Raises one of `explained` if that is what a worker returned, and `ClusterError` when workers died too
    often.
    """
    from ray.train.v2.api.exceptions import TrainingFailedError

    folder = layout.folder.resolve()
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths mean here what they mean there
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")  # a busy machine takes over 60 s
    try:
        with _Follower(folder / PROGRESS, watch):
            result = _trainer(worker, job, layout, folder).fit()
    except TrainingFailedError as error:
        raise ClusterError(f"training workers failed too often: {_reason(error, layout)}") from error
    finally:
        shutil.rmtree(folder / RAY_FOLDER, ignore_errors=True)
    return _outcome(getattr(result, "return_value", None), explained)


def _trainer(
    worker: Callable[[dict[str, Any]], dict[str, Any]], job: Any, layout: GroupLayout, folder: Path
) -> TorchTrainer:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller: Any) -> None:
            """Ctrl-C stays with `interrupts`: Ray Train's handler ends the process as if all were well."""

    gpus = {"GPU": 1.0} if layout.gpu else {}
    return Trainer(
        worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if layout.gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=layout.workers,
            use_gpu=layout.gpu,
            resources_per_worker={"CPU": layout.cpus} | gpus,
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(folder / RAY_FOLDER),
            failure_config=FailureConfig(
                max_failures=layout.max_failures, controller_failure_limit=MOST_STARTS
            ),
        ),
    )


def answer(work: Callable[[], Any], explained: Explained) -> dict[str, Any]:
    """What a worker returns: the outcome of `work`, or what explains its lack."""
    try:
        return {"outcome": work()}
    except tuple(explained.values()) as error:
        return {"kind": type(error).__name__, "message": str(error)}


def worker_device(device: str) -> torch.device:
    """Where this worker's net runs."""
    if device == "cpu":
        return torch.device("cpu")
    from ray.train.torch import get_device

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS wants for equal sums
    torch.use_deterministic_algorithms(True, warn_only=True)
    found = get_device()
    return found if isinstance(found, torch.device) else found[0]


def teller(folder: Path) -> Callable[[Any], None]:
    """What the first worker calls with each row; a full disk loses the row, not the run."""

    def tell(row: Any) -> None:
        with suppress(OSError), open(folder / PROGRESS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    return tell


def _outcome(returned: Any, explained: Explained) -> Any:
    if not isinstance(returned, dict):
        raise ClusterError("the training workers ended without a result; run the same command again")
    if "outcome" in returned:
        return returned["outcome"]
    raise explained[returned["kind"]](returned["message"])


def _reason(error: Exception, layout: object) -> str:
    """The last line of what a worker said; what Ray's memory monitor says, in a sentence."""
    if is_kill(str(error)):
        return killed(str(error), layout)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class _Follower:
    """Reads a growing file of rows while the block runs, and hands each new row over."""

    def __init__(self, path: Path, watch: Callable[[Any], None]) -> None:
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
