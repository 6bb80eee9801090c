"""The loop of `train-propagation`, the same for whatever is learned (`learner`).

Model: sample n of a step is drawn from (seed, step, n) alone; what it costs is the weighted sum of the
learner's losses. Invariant: a run that was stopped or whose worker was killed ends with the weights of one
that was not, for the same number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vidseg_core.training.attempt import (
    Attempt,
    AttemptOptions,
    Part,
    Row,
    TrainingError,
    Watch,
    step_seed,
)
from vidseg_core.training.flow_clips import FlowClip
from vidseg_core.training.group import Solo
from vidseg_core.training.learner import Drawn, Learner
from vidseg_core.training.optimise import Average, build_optimiser, learning_rate, set_learning_rate

MAX_GRADIENT = 1.0


@dataclass(frozen=True, kw_only=True)
class PropagationOptions(AttemptOptions):
    """What the loop is given besides learner and data."""

    val_every: int | None = None
    log_every: int = 50


class PropagationLoop(Attempt[PropagationOptions, nn.Module]):
    """What the learner learns is in its `net`."""

    advice = "A lower --recipe.lr or a longer warm-up usually helps"

    def __init__(
        self,
        learner: Learner,
        clips: Sequence[FlowClip],
        options: PropagationOptions,
        group: Solo | None = None,
        watch: Watch | None = None,
    ) -> None:
        recipe = learner.recipe
        super().__init__(options, recipe.steps, learner.net, group, watch)
        self._learner, self._recipe = learner, recipe
        self._clips = [clip for clip in clips if clip.moves]
        if not self._clips:
            raise TrainingError("no clips to train on")
        self._numbers = range(self.group.rank, recipe.batch, self.group.size)
        learner.net.train()
        self._optimiser = build_optimiser(learner.net, recipe.train)
        self._average = Average(learner.net, recipe.ema) if recipe.ema else None
        self._cuts: Sequence[str] = ()

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that count, on the CPU: the average, if there is one."""
        state = self._average.state if self._average else self.net.state_dict()
        return {name: value.cpu().contiguous() for name, value in state.items()}

    def step(self, number: int) -> None:
        cuts = [self._cut(number, n) for n in self._numbers]
        self._cuts = [cut.ids for cut in cuts]
        set_learning_rate(self._optimiser, learning_rate(self._recipe.train, number))
        torch.manual_seed(step_seed(self.options.seed, number, self.group.rank))
        losses = self._losses(cuts)
        values = self._agree(number, losses)
        self._optimiser.zero_grad(set_to_none=True)
        (sum(losses) * self.group.size).backward()  # type: ignore[union-attr]
        self.group.average_gradients(self.net.parameters())
        for part in self._learner.apart:
            nn.utils.clip_grad_norm_(part.parameters(), MAX_GRADIENT)
        self._optimiser.step()
        self.group.share_buffers(self.net)
        if self._average is not None:
            self._average.update(self.net, number)
        self.measure(**dict(zip(self._learner.losses, values, strict=True)))

    def _cut(self, step: int, number: int) -> Drawn:
        return self._learner.draw(self._clips, np.random.default_rng((self.options.seed, step, number)))

    def _losses(self, cuts: Sequence[Drawn]) -> list[torch.Tensor]:
        """The losses of this worker's cuts, weighted, as parts of the step's mean."""
        learner, batch = self._learner, self._recipe.batch
        found = learner.judge(cuts)
        return [found[name].sum() * (learner.weight(name) / batch) for name in learner.losses]

    def _agree(self, step: int, losses: Sequence[torch.Tensor]) -> list[float]:
        """The losses over all workers; all of them stop together if one of them is no number."""
        values = [float(loss.detach()) for loss in losses]
        bad = not all(map(math.isfinite, values))
        *totals, stops = self.group.sum(
            torch.tensor([*([0.0] * len(values) if bad else values), float(bad)])
        ).tolist()
        if stops:
            named = [text for texts in self.group.gather(self.seen() if bad else []) for text in texts]
            self.stop("the loss is not a number", step, named)
        return totals

    def seen(self) -> Sequence[str]:
        return self._cuts

    def row(self, score: float | None, elapsed: float) -> Row:
        rate = learning_rate(self._recipe.train, self.standing.step - 1)
        return {
            "step": self.standing.step,
            "lr": rate,
            **self.mean_measured(),
            "seconds": self.standing.seconds,
        }

    def parts(self) -> Mapping[str, Part]:
        parts: dict[str, Part] = {"net": self.net, "optimiser": self._optimiser}
        return parts if self._average is None else parts | {"average": self._average}
