"""Training of LVS with N frozen: how features are carried, and when they have changed (`models.lvs`).

Model: pair n of a step is drawn from (seed, step, n) alone. The key's features are carried to the frame, and
should be N's own there, as should the scores that N_task makes of them; labels may judge these, too. N's own
features teach all classes alike, where labels of few clips favour the large ones. The deviation net learns
the share of pixels that N labels differently in the two frames (LVS 2.2). Invariant: a run that was stopped
or whose worker was killed ends with the weights of one that was not, for the same number of workers.

Legend: B pairs, h, w crop size; 3 = RGB; pictures uint8 in numpy and 0..1 in torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from vidseg_core.config.recipes import PropagationRecipe
from vidseg_core.models.lvs import LvsNet
from vidseg_core.models.protocol import parts_of
from vidseg_core.training.attempt import Attempt, AttemptOptions, Part, Row, TrainingError, Watch
from vidseg_core.training.flow_clips import ClipPair, FlowClip, draw_pair
from vidseg_core.training.flow_loss import scores_loss
from vidseg_core.training.group import Solo
from vidseg_core.training.optimise import Average, build_optimiser, learning_rate, set_learning_rate

PARTS = ("scores", "features", "labels", "deviation")
"""The losses, in the order in which workers add them up."""
MAX_GRADIENT = 1.0
LEAST = 1e-3
"""Share of pixels: one in a thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """N on some pictures, in parts."""

    low: torch.Tensor
    maps: list[torch.Tensor]
    scores: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class PropagationOptions(AttemptOptions):
    """What the loop is given besides net, data and recipe."""

    val_every: int | None = None
    log_every: int = 50
    device: str = "cpu"


class PropagationLoop(Attempt[PropagationOptions, LvsNet]):
    """`segmenter`: N, which is not changed."""

    advice = "A lower --recipe.lr or a longer warm-up usually helps"

    def __init__(
        self,
        net: LvsNet,
        clips: Sequence[FlowClip],
        recipe: PropagationRecipe,
        options: PropagationOptions,
        segmenter: Any,
        group: Solo | None = None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(options, recipe.steps, net, group, watch)
        self._clips, self._recipe = [clip for clip in clips if clip.moves], recipe
        if not self._clips:
            raise TrainingError("no clips to train on")
        self._numbers = range(self.group.rank, recipe.batch, self.group.size)
        self._device = torch.device(options.device)
        net.to(self._device).train()
        self._segmenter = parts_of(segmenter.to(self._device), "lvs")
        self._optimiser = build_optimiser(net, recipe.train)
        self._average = Average(net, recipe.ema) if recipe.ema else None
        self._sums, self._counted = dict.fromkeys(PARTS, 0.0), 0
        self._pairs: Sequence[str] = ()

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that count: the average, if there is one."""
        return dict(self._average.state if self._average else self.net.state_dict())

    def step(self, number: int) -> None:
        pairs = [self._pair(number, n) for n in self._numbers]
        self._pairs = [pair.ids for pair in pairs]
        set_learning_rate(self._optimiser, learning_rate(self._recipe.train, number))
        losses = self._losses(pairs)
        values = self._agree(number, losses)
        self._optimiser.zero_grad(set_to_none=True)
        (sum(losses) * self.group.size).backward()  # type: ignore[union-attr]
        self.group.average_gradients(self.net.parameters())
        for part in (self.net.carrier, self.net.deviation):  # neither holds the other back
            nn.utils.clip_grad_norm_(part.parameters(), MAX_GRADIENT)
        self._optimiser.step()
        if self._average is not None:
            self._average.update(self.net, number)
        for name, value in zip(PARTS, values, strict=True):
            self._sums[name] += value
        self._counted += 1

    def _pair(self, step: int, number: int) -> ClipPair:
        recipe, random = self._recipe, np.random.default_rng((self.options.seed, step, number))
        return draw_pair(
            self._clips, random, height=recipe.height, width=recipe.width, max_gap=recipe.max_gap
        )

    def _losses(self, pairs: Sequence[ClipPair]) -> list[torch.Tensor]:
        """The losses of this worker's pairs, weighted, as parts of the step's mean."""
        net, segmenter, recipe = self.net, self._segmenter, self._recipe
        with torch.no_grad():
            key, now = (self._look([p.key_hw3 for p in pairs]), self._look([p.current_hw3 for p in pairs]))
            changed_B = (key.scores.argmax(1) != now.scores.argmax(1)).float().mean(dim=(1, 2))
        labels_Bhw = self._tensor([p.labels_hw for p in pairs]).long()
        fused = net.carrier(key.low, now.low, key.maps[0].float())
        scores = segmenter.head(fused if len(key.maps) == 1 else (fused, *key.maps[1:]))
        losses = {
            "scores": _divergence(scores, now.scores).sum(),
            "features": _distance(fused, now.maps[0].float()).sum(),
            "labels": scores_loss(scores, labels_Bhw).sum(),
            "deviation": _misjudged(net.deviation(key.low, now.low), changed_B).sum(),
        }
        return [losses[name] * (getattr(recipe, name) / recipe.batch) for name in PARTS]

    def _look(self, pictures: Sequence[np.ndarray]) -> _Seen:
        """The pictures as N sees them."""
        low = self._segmenter.low(self._pictures(pictures))
        high = self._segmenter.high(low)
        maps = [high] if isinstance(high, torch.Tensor) else list(high)
        return _Seen(low=self.net.low_of(low).float(), maps=maps, scores=self._segmenter.head(high))

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
        return self._pairs

    def _tensor(self, arrays: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self._device)

    def _pictures(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        return self._tensor(pictures).permute(0, 3, 1, 2).float().div(255.0).contiguous()

    def row(self, score: float | None, elapsed: float) -> Row:
        means = {name: value / self._counted for name, value in self._sums.items()}
        rate = learning_rate(self._recipe.train, self.standing.step - 1)
        self._sums, self._counted = dict.fromkeys(PARTS, 0.0), 0
        return {"step": self.standing.step, "lr": rate, **means, "seconds": self.standing.seconds}

    def parts(self) -> Mapping[str, Part]:
        parts: dict[str, Part] = {"net": self.net, "optimiser": self._optimiser}
        return parts if self._average is None else parts | {"average": self._average}


def _misjudged(expected_B: torch.Tensor, changed_B: torch.Tensor) -> torch.Tensor:
    """(B,): squared logarithm of how many times too large or too small an expected share is.

    In calm clips small shares must be distinguished, too; those below `LEAST` are all alike.
    """
    return ((expected_B + LEAST).log() - (changed_B + LEAST).log()).square()


def _divergence(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """(B,): Kullback-Leibler divergence of the classes of a pixel from those wanted, on average."""
    found, target = scores.log_softmax(1), wanted.log_softmax(1)
    return (target.exp() * (target - found)).sum(1).mean(dim=(1, 2))


def _distance(maps_BChw: torch.Tensor, wanted_BChw: torch.Tensor) -> torch.Tensor:
    """(B,): how far features are from those wanted, in standard deviations of these (Huber)."""
    scale = wanted_BChw.std().clamp(min=1e-6)
    loss = functional.smooth_l1_loss(maps_BChw / scale, wanted_BChw / scale, reduction="none")
    return loss.mean(dim=(1, 2, 3))
