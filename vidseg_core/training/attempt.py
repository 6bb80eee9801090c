"""One attempt at a training run, from its checkpoint to its last step: what all loops have in common.

Model: a loop gives what a step does, what a row of the curve says and what validation finds; the order of
steps, rows and checkpoints is here. Invariants: a run that was killed and goes on from a checkpoint ends with
the weights of one that was not; weights that are not finite never replace a good checkpoint; what fails for
one worker, and can be explained, fails for all of them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NoReturn, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from vidseg_core.datasets.records import DatasetError
from vidseg_core.store.atomic import make_folder, write_whole
from vidseg_core.store.errors import WriteError
from vidseg_core.training.checkpoint import Standing, load_checkpoint, save_checkpoint
from vidseg_core.training.group import Solo

Row = dict[str, Any]
"""A point of the curve."""
Watch = Callable[[Any], None]
Result = TypeVar("Result")
OptionsT = TypeVar("OptionsT", bound="AttemptOptions")
NetT = TypeVar("NetT", bound=nn.Module)


class TrainingError(RuntimeError):
    """Training cannot go on; the last good checkpoint stays."""

    exit_code = 1


class Part(Protocol):
    """Something that a checkpoint holds."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class AttemptOptions:
    """What every loop is given besides net and data."""

    folder: Path
    """Gets checkpoints and weights; is read to go on."""
    seed: int = 0
    fingerprint: str = ""
    """A checkpoint with another one is refused."""
    val_every: int | None = 200
    """Steps between validations; the last step always validates. None: nothing is validated."""
    save_every: int = 200
    """Steps between checkpoints; validations save too."""
    log_every: int = 20
    """Steps between rows of the curve."""


class Attempt(ABC, Generic[OptionsT, NetT]):
    """See the module."""

    unit: ClassVar[str] = "step"
    """What is counted."""
    advice: ClassVar[str] = "A lower learning rate or longer warm-up usually helps"

    def __init__(
        self, options: OptionsT, steps: int, net: NetT, group: Solo | None, watch: Watch | None
    ) -> None:
        self.options, self.steps, self.net = options, steps, net
        self.group, self._watch = group or Solo(), watch
        self.standing = Standing(seed=options.seed, fingerprint=options.fingerprint)
        self._mark = 0.0

    def run(self) -> Standing:
        """All steps that are left; where the run stands then."""
        self._restore()
        options, standing = self.options, self.standing
        self._mark = time.monotonic()
        self.begin(standing.step)
        for number in range(standing.step, self.steps):
            self.step(number)
            standing.step = number + 1
            last = standing.step == self.steps
            validates = last or _due(standing.step, options.val_every)
            saves = validates or _due(standing.step, options.save_every)
            if validates:
                self.require_finite(number)
            if validates or _due(standing.step, options.log_every):
                self._write_row(self.validate() if validates else None)
            if saves:
                self.require_finite(number)
                self.together(self._save)
        return standing

    @property
    def trained(self) -> nn.Module:
        """All that is trained: the net, and what a loop trains beside it."""
        return self.net

    # --- what a loop gives ---------------------------------------------------------------------------------

    @abstractmethod
    def step(self, number: int) -> None:
        """Change the weights once."""

    @abstractmethod
    def row(self, score: float | None, elapsed: float) -> Row:
        """The curve since the row before, `elapsed` seconds ago; `score`: what `validate` found."""

    @abstractmethod
    def parts(self) -> Mapping[str, Part]:
        """What a checkpoint holds, by name."""

    def begin(self, step: int) -> None:  # noqa: B027
        """Called once, when it is known where the run goes on."""

    def validate(self) -> float | None:
        """How good the weights are; None where there is nothing to judge them by."""
        return None

    def write_weights(self) -> None:  # noqa: B027
        """Write what is for the user, beside a checkpoint; the first worker is asked."""

    def seen(self) -> Sequence[str]:
        """What the last step learned from, in words."""
        return ()

    # --- for loops -----------------------------------------------------------------------------------------

    def together(self, work: Callable[[], Result]) -> Result:
        """Do `work`; if it fails for one worker, in a way that can be explained, it fails for all."""
        try:
            result, problem = work(), None
        except (DatasetError, WriteError) as error:
            if self.group.size == 1:
                raise
            result, problem = None, error
        problems = [found for found in self.group.gather(problem) if found is not None]
        if problems:
            raise problems[0]
        return result  # type: ignore[return-value]

    def keep_best(self, score: float, name: str, data: Callable[[], bytes]) -> None:
        """Write the weights as `name` if none before had as good a score.

        The first worker's score counts: others may differ in the last bit, and all must go the same way.
        """
        standing, score = self.standing, self.group.gather(score)[0]
        if score > standing.best:
            standing.best, standing.best_step = score, standing.step
            self.together(lambda: self.write(name, data))

    def write(self, name: str, data: Callable[[], bytes]) -> None:
        """A file in the run's folder, from the first worker."""
        if self.group.rank == 0:
            write_whole(self.options.folder / name, data())

    def measure(self, **values: float) -> None:
        """What a step measured, the same for all workers; kept in checkpoints until there is a row of it."""
        self.standing.add(values)

    def measured(self) -> dict[str, float]:
        """Sums over the steps since the last row, by name."""
        return dict(self.standing.measured)

    def mean_measured(self) -> dict[str, float]:
        """Means over the steps since the last row, by name; where a step has nothing of a name, that is 0."""
        steps = max(1, self.standing.measured_steps)
        return {name: value / steps for name, value in self.measured().items()}

    def require_finite(self, step: int) -> None:
        """`TrainingError` where a weight is no number."""
        if not all(bool(torch.isfinite(weight).all()) for weight in self.trained.parameters()):
            self.stop("the weights are not finite", step, self.seen())

    def stop(self, what: str, step: int, seen: Sequence[str]) -> NoReturn:
        """Raises `TrainingError` with the step, what it learned from, and the checkpoint that is kept."""
        found = load_checkpoint(self.options.folder, self.options.fingerprint)
        made_of = f", batch: {'; '.join(seen)}" if seen else ""
        kept = f"the checkpoint of {self.unit} {found[0].step if found else 0} is kept"
        raise TrainingError(f"{what} at {self.unit} {step}{made_of}; {kept}. {self.advice}")

    def _write_row(self, score: float | None) -> None:
        now = time.monotonic()
        elapsed, self._mark = now - self._mark, now
        self.standing.seconds += elapsed
        row = self.row(score, elapsed)
        self.standing.rows.append(row)
        self.standing.measured, self.standing.measured_steps = {}, 0
        if self._watch is not None:
            self._watch(row)

    def _save(self) -> None:
        if self.group.rank == 0:
            self.write_weights()
            tensors = {name: part.state_dict() for name, part in self.parts().items()}
            save_checkpoint(self.options.folder, self.standing, tensors)

    def _restore(self) -> None:
        make_folder(self.options.folder)
        found = load_checkpoint(self.options.folder, self.options.fingerprint)
        if found is not None:
            self.standing, tensors = found
            for name, part in self.parts().items():
                part.load_state_dict(tensors[name])


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of torch's random numbers (dropout) in one step of one worker."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> np.uint64(1))
