"""What a step learns beside the labels of its frames: that neighbours agree, and what a teacher says.

Model: the net sees a frame and its neighbours in one pass, in the order of time: before, now, after. Each
loss is a number for each frame of the batch; frames without neighbours count in none that needs them, as in
Algorithm 1 of ETC. The losses are added to the cross-entropy of the frame with their weights (Eq. 1, lambda);
the paper sums over the pairs of neighbours of a triplet, here it is their mean, so that a weight means the
same for any number. Invariant: everything here depends on the batch and the weights alone.

Legend: B frames of a batch, K neighbours, T = K + 1 frames in the order of time, C classes, H W crop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import nn

from vidseg_core.config.recipes import TemporalRecipe
from vidseg_core.datasets.records import IGNORE
from vidseg_core.models.trainable import TrainableNet
from vidseg_core.training.loss import segmentation_loss
from vidseg_core.training.samples import Near
from vidseg_core.training.temporal_loss import FrozenFlow, temporal_loss, visible

Autocast = Callable[[], AbstractContextManager[object]]
LABELS, TEMPORAL = "labels", "weight"
"""Names of losses are those of their weights: `--temporal.NAME`."""


class Seen(NamedTuple):
    """What a net made of the frames of a step, in the order of time: one of each for each time."""

    frames: Sequence[torch.Tensor]
    scores: Sequence[torch.Tensor]
    features: Sequence[torch.Tensor]


class Beside(nn.Module):
    """The losses of a run, and what is trained for them beside the net."""

    def __init__(self, recipe: TemporalRecipe, *, device: str, seed: int) -> None:
        """`ConfigError` for a flow that cannot be used."""
        super().__init__()
        self._recipe = recipe
        self._flow: FrozenFlow | None = None
        if recipe.gap and recipe.weight:
            self._flow = FrozenFlow(recipe, device=device, seed=seed)

    @property
    def losses(self) -> tuple[str, ...]:
        """The names of those that there are."""
        recipe, near = self._recipe, bool(self._recipe.gap)
        weights = {LABELS: near * recipe.labels, TEMPORAL: near * recipe.weight}
        return tuple(name for name, weight in weights.items() if weight)

    def decides(self) -> dict[str, str]:
        """What else decides the weights than options and data, by name."""
        return {} if self._flow is None else {"flow_weights": self._flow.digest}

    def try_on(self, side: int) -> None:
        """`ConfigError` for parts that cannot take crops of this side."""
        if self._flow is not None:
            self._flow.try_on(side)

    def judge(
        self, net: TrainableNet, frames_B3HW: torch.Tensor, near: Near | None, autocast: Autocast
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Scores of the frames, and the losses by name, weighted, as numbers of the batch."""
        seen = see(net, frames_B3HW, near, autocast)
        terms: dict[str, torch.Tensor] = {}
        if near is not None:
            terms |= self._of_neighbours(seen, near)
        return seen.scores[len(seen.scores) // 2], terms

    def _of_neighbours(self, seen: Seen, near: Near) -> dict[str, torch.Tensor]:
        recipe, terms = self._recipe, dict[str, torch.Tensor]()
        if recipe.labels:
            others_BCHW = torch.cat([seen.scores[0], seen.scores[2]])
            labels_BHW = near.labels_KHW.transpose(0, 1).flatten(0, 1)
            found_BHW = near.found.repeat(2)[:, None, None]
            labels_BHW = torch.where(found_BHW, labels_BHW, torch.full_like(labels_BHW, IGNORE))
            terms[LABELS] = recipe.labels * segmentation_loss(others_BCHW, labels_BHW)
        if self._flow is not None:
            pairs = [self._temporal(seen, time) for time in range(len(seen.frames) - 1)]
            terms[TEMPORAL] = recipe.weight * mean_of(torch.stack(pairs).mean(0), near.found)
        return terms

    def _temporal(self, seen: Seen, time: int) -> torch.Tensor:
        """(B,): Eq. 3 of the pair that begins at this place in time."""
        assert self._flow is not None
        now, there = seen.frames[time], seen.frames[time + 1]
        flow_B2HW = self._flow(now, there)
        visible_BHW = visible(now, there, flow_B2HW, self._recipe.sharpness)
        return temporal_loss(seen.scores[time], seen.scores[time + 1], flow_B2HW, visible_BHW)


def see(net: TrainableNet, frames_B3HW: torch.Tensor, near: Near | None, autocast: Autocast) -> Seen:
    """The frames, and their neighbours where there are any, in one pass."""
    frames = [frames_B3HW]
    if near is not None:
        before, after = near.frames_K3HW.unbind(1)
        frames = [before, frames_B3HW, after]
    with autocast():
        features, scores = net.features_and_scores(torch.cat(frames))
    count = len(frames)
    return Seen(frames, scores.float().chunk(count), features.float().chunk(count))


def mean_of(losses_B: torch.Tensor, counts_B: torch.Tensor) -> torch.Tensor:
    """Their mean over the frames that count; 0 if none does."""
    zero_B = torch.zeros_like(losses_B)
    return torch.where(counts_B, losses_B, zero_B).sum() / counts_B.sum().clamp_min(1)
