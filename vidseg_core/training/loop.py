"""The training loop of segmentation nets: the same for one process and for the workers of a Ray Train group.

Model: step s takes its batch, its learning rate and its random numbers from s alone, changes weights, average
and optimiser, and carries nothing else to the next; all of that is in the checkpoint (see `attempt`).
Invariant: the weights depend on the seed, the number of workers and the torch threads alone (on a GPU: as far
as its kernels are deterministic).

Shape suffixes: see `samples`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from vidseg_core.config.recipes import TrainRecipe
from vidseg_core.datasets.records import DatasetError
from vidseg_core.models.trainable import TrainableNet, file_state, weights_bytes
from vidseg_core.training.attempt import Attempt, AttemptOptions, Part, Row, Watch, step_seed
from vidseg_core.training.beside import OPTIONS, Beside
from vidseg_core.training.checkpoint import Standing
from vidseg_core.training.group import Solo
from vidseg_core.training.loss import segmentation_loss
from vidseg_core.training.optimise import Average, build_optimiser, learning_rate, set_learning_rate
from vidseg_core.training.samples import Batch
from vidseg_core.training.validate import Validation

BEST, LAST = "best.safetensors", "last.safetensors"


@dataclass(frozen=True, kw_only=True)
class LoopOptions(AttemptOptions):
    """What the loop is given besides the net and the data."""

    recipe: TrainRecipe
    device: str = "cpu"
    class_weights: tuple[float, ...] | None = None
    mixed_precision: bool = True
    """On a GPU: bf16, or fp16 with a scaled loss where the GPU has no bf16. Nothing on a CPU."""


Batches = Callable[[int], Iterator[Batch]]
"""From the step to start with to one batch for each step from there on."""


def train(
    net: TrainableNet,
    batches: Batches,
    options: LoopOptions,
    *,
    beside: Beside | None = None,
    validation: Validation | None = None,
    group: Solo | None = None,
    watch: Watch | None = None,
) -> Standing:
    """Train `net` in place to the last step of the recipe, from the folder's checkpoint if there is one.

    `beside`: what is learned beside labels. `watch` is called with each new row. Raises `TrainingError` (with
    step and frames) when the loss is not finite, `DatasetError` when a sample cannot be read,
    `CheckpointError` and `WriteError`.
    """
    return _Loop(net, batches, options, beside, validation, group, watch).run()


class _Loop(Attempt[LoopOptions, TrainableNet]):
    def __init__(
        self,
        net: TrainableNet,
        batches: Batches,
        options: LoopOptions,
        beside: Beside | None,
        validation: Validation | None,
        group: Solo | None,
        watch: Watch | None,
    ) -> None:
        self._device = torch.device(options.device)
        super().__init__(options, options.recipe.steps, net.to(self._device).train(), group, watch)
        self._recipe, self._batches, self._validation = options.recipe, batches, validation
        self._beside = None if beside is None else beside.to(self._device).train()
        self._trained = net if self._beside is None else nn.ModuleList([net, self._beside])
        self._optimiser = build_optimiser(self.trained, options.recipe)
        self._average = Average(net.net, options.recipe.ema) if options.recipe.ema else None
        self._autocast, scales = _precision(self._device, options.mixed_precision)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=scales)
        weights = options.class_weights
        weights_C = None if weights is None else torch.tensor(weights, device=self._device)
        self._on_labels = partial(segmentation_loss, class_weights_C=weights_C, dice=options.recipe.dice)
        self._ids: tuple[tuple[str, int], ...] = ()
        self._source: Iterator[Batch] = iter(())
        self._waited = 0.0

    @property
    def trained(self) -> nn.Module:
        return self._trained

    def begin(self, step: int) -> None:
        self._source = self._batches(step)

    def step(self, number: int) -> None:
        batch, problem = self._fetch()
        set_learning_rate(self._optimiser, learning_rate(self._recipe, number))
        torch.manual_seed(step_seed(self.options.seed, number, self.group.rank))
        terms, problem = self._terms(batch, problem)
        loss = sum_of(terms)
        self.measure(**self._agree(number, terms, loss, problem))
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self.group.average_gradients(self.trained.parameters())
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._beside is not None:
            self._beside.after_step()
        if self._average is not None:
            self._average.update(self.net.net, number)

    def _fetch(self) -> tuple[Batch | None, str]:
        """The next batch, or what is wrong with it; the wait for it counts as data loading."""
        started = time.monotonic()
        try:
            return next(self._source), ""
        except StopIteration:
            return None, "the data ended early"
        except Exception as error:
            problem = _unreadable(error)
            if problem is None:
                raise
            return None, problem
        finally:
            self._waited += time.monotonic() - started

    def _terms(self, batch: Batch | None, problem: str) -> tuple[dict[str, torch.Tensor], str]:
        """What is added up, and what is wrong with the batch: then so many zeros as the other workers have
        terms, who add theirs up with these."""
        if batch is not None:
            self._ids = batch.ids
            try:
                return self._terms_of(batch), problem
            except DatasetError as error:
                problem = str(error)
        names = () if self._beside is None else self._beside.losses
        return {name: torch.zeros((), device=self._device) for name in ("", *names)}, problem

    def _terms_of(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What is added up: the loss on labels, which has no name, and those beside it."""
        batch, others = batch.to(self._device), {}
        if self._beside is None:
            with self._autocast():
                scores_BCHW = self.net(batch.frames_B3HW)
        else:
            scores_BCHW, others = self._beside.judge(self.net, batch, self._autocast, self._on_labels)
        return {"": self._on_labels(scores_BCHW.float(), batch.labels_BHW), **others}

    def _agree(
        self, step: int, terms: Mapping[str, torch.Tensor], loss: torch.Tensor, problem: str
    ) -> dict[str, float]:
        """Means over all workers, by column of the curve; all of them stop together if one cannot go on."""
        value = float(loss.detach())
        bad = bool(problem) or not math.isfinite(value)
        each = [float(term.detach()) for term in terms.values()] if self._beside is not None else []
        told = [0.0 if bad else number for number in (value, *each)]
        total, stops, *means = self.group.sum(torch.tensor([told[0], float(bad), *told[1:]])).tolist()
        if not stops:
            columns = () if self._beside is None else term_columns(self._beside.losses)
            sums = {"loss": total} | dict(zip(columns, means, strict=True))
            return {name: number / self.group.size for name, number in sums.items()}
        named = {} if problem else {name: float(term.detach()) for name, term in terms.items()}
        report = self.group.gather((problem, named, value, self.seen() if bad else []))
        problems = [text for text, _, _, _ in report if text]
        if problems:
            raise DatasetError(problems[0])
        said = [said_of(named, number) for _, named, number, _ in report if not math.isfinite(number)]
        self.stop(said[0], step, [name for *_, names in report for name in names])

    def seen(self) -> Sequence[str]:
        return [f"{video} frame {frame}" for video, frame in self._ids]

    def validate(self) -> float | None:
        """mIoU of what would be saved; the best so far is written. None without validation frames."""
        self.group.share_buffers(self.net)
        if self._validation is None:
            return None
        validation, state = self._validation, self._current()
        kept = {key: value.clone() for key, value in self.net.net.state_dict().items()}
        self.net.net.load_state_dict(state)
        group = self.group
        matrix = self.together(lambda: validation(self.net, self._device, group.rank, group.size))
        self.net.net.load_state_dict(kept)
        matrix.counts_CC = group.sum(torch.from_numpy(matrix.counts_CC)).numpy()
        miou = matrix.mean_iou()
        self.keep_best(miou, BEST, lambda: self._weights(state, miou))
        return miou

    def _current(self) -> dict[str, torch.Tensor]:
        """The weights that count: the average, if there is one."""
        return dict(self._average.state if self._average else self.net.net.state_dict())

    def row(self, score: float | None, elapsed: float) -> Row:
        means, waited = self.mean_measured(), self._waited
        self._waited = 0.0
        return {
            "step": self.standing.step,
            "lr": learning_rate(self._recipe, self.standing.step - 1),
            "loss": means.pop("loss"),
            "val_miou": score,
            "seconds": self.standing.seconds,
            "data_share": waited / elapsed if elapsed else 0.0,
            **means,
        }

    def _weights(self, state: dict[str, torch.Tensor], miou: float | None) -> bytes:
        facts = {"spec": self.net.spec, "step": str(self.standing.step)}
        facts |= {} if miou is None else {"val_miou": f"{miou:.4f}"}
        return weights_bytes(file_state(self.net, state), self.net.class_names, **facts)

    def write_weights(self) -> None:
        rows, step = self.standing.rows, self.standing.step
        miou = rows[-1]["val_miou"] if rows and rows[-1]["step"] == step else None
        self.write(LAST, lambda: self._weights(self._current(), miou))
        if step == self.steps and not self.standing.best_step:
            self.write(BEST, lambda: self._weights(self._current(), None))

    def parts(self) -> Mapping[str, Part]:
        parts: dict[str, Part] = {
            "net": self.net.net,
            "optimiser": self._optimiser,
            "scaler": self._scaler,
        }
        if self._beside is not None:
            parts["beside"] = self._beside
        return parts if self._average is None else parts | {"average": self._average}


def sum_of(terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """All of them in their order."""
    first, *rest = terms.values()
    for term in rest:
        first = first + term
    return first


def term_columns(losses: Sequence[str]) -> tuple[str, ...]:
    """Columns of the curve, where there is more than the loss on labels; that comes first."""
    return ("loss_frame", *(f"loss_{name}" for name in losses))


def said_of(terms: Mapping[str, float], value: float) -> str:
    """Which loss is no number."""
    bad = [(name, number) for name, number in terms.items() if not math.isfinite(number)]
    name, number = bad[0] if bad else ("", value)
    return f"the {name} loss ({OPTIONS[name]}) is {number}" if name else f"the loss is {number}"


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


def total_parameters(net: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(weight.numel() for weight in net.parameters() if weight.requires_grad)
