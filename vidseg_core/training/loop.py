"""The training loop: the same for one process and for the workers of a Ray Train group.

Model: step s takes its batch, its learning rate and its random numbers from s alone, changes weights, average
and optimiser, and nothing else is carried from step to step; all of that is in the checkpoint. Invariant: a
run that was killed and goes on from a checkpoint ends with the weights of one that was not, for the same
number of workers and torch threads (on a GPU: as far as its kernels are deterministic).

Shape suffixes: see `samples`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from torch import nn

from vidseg_core.config.recipes import TrainRecipe
from vidseg_core.datasets.records import DatasetError
from vidseg_core.models.trainable import TrainableNet, file_state, weights_bytes
from vidseg_core.store.atomic import write_whole
from vidseg_core.store.errors import WriteError
from vidseg_core.training.checkpoint import Standing, load_checkpoint, save_checkpoint
from vidseg_core.training.group import Solo
from vidseg_core.training.loss import segmentation_loss
from vidseg_core.training.optimise import Average, build_optimiser, learning_rate, set_learning_rate
from vidseg_core.training.samples import Batch
from vidseg_core.training.validate import Validation

BEST, LAST = "best.safetensors", "last.safetensors"
Result = TypeVar("Result")


class TrainingError(RuntimeError):
    """Training cannot go on; the last good checkpoint stays."""

    exit_code = 1


class Row(TypedDict):
    """A point of the curve."""

    step: int
    lr: float
    loss: float
    """Mean since the row before."""
    val_miou: float | None
    """None: not validated here."""
    seconds: float
    """Since training began, validation included, attempts that were lost excluded."""
    data_share: float
    """Share of the time since the row before that was spent waiting for data, 0..1."""


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What the loop is told besides the net and the data."""

    recipe: TrainRecipe
    folder: Path
    """Gets checkpoints, `best.safetensors` and `last.safetensors`; is read to go on."""
    seed: int = 0
    device: str = "cpu"
    val_every: int = 200
    """Steps between validations; the last step always validates."""
    save_every: int = 200
    """Steps between checkpoints; validations save too."""
    log_every: int = 20
    """Steps between rows of the curve."""
    class_weights: tuple[float, ...] | None = None
    mixed_precision: bool = True
    """On a GPU: bf16, or fp16 with a scaled loss where the GPU has no bf16. Nothing on a CPU."""
    fingerprint: str = ""
    """A checkpoint with another one is refused."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How training ended."""

    step: int
    best_miou: float
    best_step: int
    seconds: float
    rows: list[Row] = field(repr=False)


Batches = Callable[[int], Iterator[Batch]]
"""From the step to start with to one batch for each step from there on."""


def train(
    net: TrainableNet,
    batches: Batches,
    options: LoopOptions,
    *,
    validation: Validation | None = None,
    group: Solo | None = None,
    watch: Callable[[Row], None] | None = None,
) -> Outcome:
    """Train `net` in place to the last step of the recipe, from the folder's checkpoint if there is one.

    `watch` is called with each new row. Raises `TrainingError` (with step and frames) when the loss is not
    finite, `DatasetError` when a sample cannot be read, `CheckpointError` and `WriteError`.
    """
    return _Loop(net, options, validation, group or Solo(), watch).run(batches)


class _Loop:
    """One attempt at a run."""

    def __init__(
        self,
        net: TrainableNet,
        options: LoopOptions,
        validation: Validation | None,
        group: Solo,
        watch: Callable[[Row], None] | None,
    ) -> None:
        self._options, self._recipe, self._group = options, options.recipe, group
        self._validation, self._watch = validation, watch
        self._device = torch.device(options.device)
        self._net = net.to(self._device).train()
        self._optimiser = build_optimiser(net, options.recipe)
        self._average = Average(net.net, options.recipe.ema) if options.recipe.ema else None
        self._autocast, scales = _precision(self._device, options.mixed_precision)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=scales)
        weights = options.class_weights
        self._weights_C = None if weights is None else torch.tensor(weights, device=self._device)
        self._standing = Standing(seed=options.seed, fingerprint=options.fingerprint)
        self._losses: list[float] = []
        self._ids: tuple[tuple[str, int], ...] = ()
        self._waited = 0.0

    def run(self, batches: Batches) -> Outcome:
        self._restore()
        self._mark = time.monotonic()
        source, standing = batches(self._standing.step), self._standing
        for step in range(standing.step, self._recipe.steps):
            self._step(step, source)
            standing.step = step + 1
            last = standing.step == self._recipe.steps
            validates = last or standing.step % self._options.val_every == 0
            if validates or standing.step % self._options.log_every == 0:
                self._write_row(self._validate() if validates else None)
            if validates or standing.step % self._options.save_every == 0:
                self._save()
        return Outcome(
            step=standing.step,
            best_miou=standing.best_miou,
            best_step=standing.best_step,
            seconds=standing.seconds,
            rows=standing.rows,  # type: ignore[arg-type]
        )

    def _step(self, step: int, source: Iterator[Batch]) -> None:
        batch, problem = self._fetch(source)
        rate = learning_rate(self._recipe, step)
        set_learning_rate(self._optimiser, rate)
        torch.manual_seed(_step_seed(self._options.seed, step, self._group.rank))
        loss = torch.zeros((), device=self._device)
        if batch is not None:
            self._ids = batch.ids
            loss = self._loss(batch)
        value = self._agree(step, loss, problem)
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._group.average_gradients(self._net.parameters())
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._average is not None:
            self._average.update(self._net.net, step)
        self._losses.append(value)

    def _fetch(self, source: Iterator[Batch]) -> tuple[Batch | None, str]:
        """The next batch, or what is wrong with it; the wait for it counts as data loading."""
        started = time.monotonic()
        try:
            return next(source), ""
        except StopIteration:
            return None, "the data ended early"
        except Exception as error:
            problem = _unreadable(error)
            if problem is None:
                raise
            return None, problem
        finally:
            self._waited += time.monotonic() - started

    def _loss(self, batch: Batch) -> torch.Tensor:
        with self._autocast():
            scores_BCHW = self._net(batch.frames_B3HW.to(self._device, non_blocking=True))
        return segmentation_loss(
            scores_BCHW.float(),
            batch.labels_BHW.to(self._device, non_blocking=True),
            class_weights_C=self._weights_C,
            dice=self._recipe.dice,
        )

    def _agree(self, step: int, loss: torch.Tensor, problem: str) -> float:
        """The mean loss over all workers; all of them stop together if one cannot go on."""
        value = float(loss.detach())
        bad = bool(problem) or not math.isfinite(value)
        total, stops = self._group.sum(torch.tensor([0.0 if bad else value, float(bad)])).tolist()
        if not stops:
            return total / self._group.size
        report = self._group.gather((problem, value, _names(self._ids) if bad else []))
        problems = [text for text, _, _ in report if text]
        if problems:
            raise DatasetError(problems[0])
        values = [number for _, number, _ in report if not math.isfinite(number)]
        frames = [name for _, _, names in report for name in names]
        raise TrainingError(self._stopped(f"the loss is {values[0]}", step, frames))

    def _stopped(self, what: str, step: int, frames: list[str]) -> str:
        found = load_checkpoint(self._options.folder, self._options.fingerprint)
        return (
            f"{what} at step {step}, batch: {', '.join(frames)}; the checkpoint of step "
            f"{found[0].step if found else 0} is kept. A lower learning rate or longer warm-up usually helps"
        )

    def _validate(self) -> float | None:
        """mIoU of what would be saved; the best so far is written. None without validation frames."""
        self._require_finite()
        self._group.share_buffers(self._net)
        if self._validation is None:
            return None
        validation, state = self._validation, self._current()
        kept = {key: value.clone() for key, value in self._net.net.state_dict().items()}
        self._net.net.load_state_dict(state)
        group = self._group
        matrix = self._together(lambda: validation(self._net, self._device, group.rank, group.size))
        self._net.net.load_state_dict(kept)
        matrix.counts_CC = group.sum(torch.from_numpy(matrix.counts_CC)).numpy()
        miou, standing = matrix.mean_iou(), self._standing
        if miou > standing.best_miou:
            standing.best_miou, standing.best_step = miou, standing.step
            self._together(lambda: self._write_weights(BEST, state, miou))
        return miou

    def _together(self, work: Callable[[], Result]) -> Result:
        """Do `work`; if it fails for one worker, in a way that can be explained, it fails for all."""
        try:
            result, problem = work(), None
        except (DatasetError, WriteError) as error:
            if self._group.size == 1:
                raise
            result, problem = None, error
        problems = [found for found in self._group.gather(problem) if found is not None]
        if problems:
            raise problems[0]
        return result  # type: ignore[return-value]

    def _current(self) -> dict[str, torch.Tensor]:
        """The weights that count: the average, if there is one."""
        return dict(self._average.state if self._average else self._net.net.state_dict())

    def _write_row(self, miou: float | None) -> None:
        now, standing = time.monotonic(), self._standing
        elapsed = now - self._mark
        row = Row(
            step=standing.step,
            lr=learning_rate(self._recipe, standing.step - 1),
            loss=sum(self._losses) / max(1, len(self._losses)),
            val_miou=miou,
            seconds=standing.seconds + elapsed,
            data_share=self._waited / elapsed if elapsed else 0.0,
        )
        standing.seconds += elapsed
        standing.rows.append({**row})
        self._mark, self._waited, self._losses = now, 0.0, []
        if self._watch is not None:
            self._watch(row)

    def _write_weights(self, name: str, state: dict[str, torch.Tensor], miou: float | None) -> None:
        if self._group.rank == 0:
            facts = {"spec": self._net.spec, "step": str(self._standing.step)}
            facts |= {} if miou is None else {"val_miou": f"{miou:.4f}"}
            data = weights_bytes(file_state(self._net, state), self._net.class_names, **facts)
            write_whole(self._options.folder / name, data)

    def _save(self) -> None:
        self._require_finite()
        self._together(self._write_all)

    def _write_all(self) -> None:
        if self._group.rank != 0:
            return
        self._write_weights(LAST, self._current(), self._latest_miou())
        if self._standing.step == self._recipe.steps and not self._standing.best_step:
            self._write_weights(BEST, self._current(), None)
        tensors: dict[str, Any] = {
            "net": self._net.net.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        if self._average is not None:
            tensors["average"] = self._average.state
        save_checkpoint(self._options.folder, self._standing, tensors)

    def _latest_miou(self) -> float | None:
        rows = self._standing.rows
        return rows[-1]["val_miou"] if rows and rows[-1]["step"] == self._standing.step else None

    def _require_finite(self) -> None:
        """Weights that are not numbers must never replace a good checkpoint."""
        if not all(bool(torch.isfinite(weight).all()) for weight in self._net.parameters()):
            step = self._standing.step - 1
            raise TrainingError(self._stopped("the weights are not finite", step, _names(self._ids)))

    def _restore(self) -> None:
        found = load_checkpoint(self._options.folder, self._options.fingerprint)
        if found is None:
            return
        self._standing, tensors = found
        self._net.net.load_state_dict(tensors["net"])
        self._optimiser.load_state_dict(tensors["optimiser"])
        self._scaler.load_state_dict(tensors["scaler"])
        if self._average is not None:
            self._average.load(tensors["average"])


def _precision(
    device: torch.device, mixed: bool
) -> tuple[Callable[[], AbstractContextManager[object]], bool]:
    """What to run the net under, and whether the loss must be scaled."""
    if device.type != "cuda" or not mixed:
        return nullcontext, False
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = torch.bfloat16 if bf16 else torch.float16
    return lambda: torch.autocast("cuda", dtype=dtype), not bf16


def _unreadable(error: BaseException | None) -> str | None:
    """The message of the `DatasetError` that it began with; Ray wraps what a task raises."""
    while error is not None:
        if isinstance(error, DatasetError):
            return str(error)
        error = getattr(error, "cause", None) or error.__cause__
    return None


def _names(ids: tuple[tuple[str, int], ...]) -> list[str]:
    return [f"{video} frame {frame}" for video, frame in ids]


def _step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of torch's random numbers (dropout) in one step of one worker."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def total_parameters(net: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(weight.numel() for weight in net.parameters() if weight.requires_grad)
