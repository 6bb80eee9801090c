"""Training of a flow net F with N frozen (DFF section 4; DVRL 4.2), on clips and on exactly known flow.

Model: pair n of a step is drawn from (seed, step, n) alone. A share of the pairs is made from pictures and
has exact flow (`moved`); the others are frames of clips at gaps of 1 to 30, judged by what their labels (or
N's own output) say of the warped key, and by how the warped key looks. A net with a scale field multiplies
what it warps by it (DFF section 3). Invariant: a run that was stopped or whose worker was killed ends with
the weights of one that was not, for the same number of workers.

Workers divide the pairs of a step; each holds all clips, which are small, in memory that they share.

Legend: B pairs, h, w crop size; 2 = (u, v); 3 = RGB; pictures uint8 in numpy and 0..1 in torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vidseg_core.config.recipes import FlowRecipe
from vidseg_core.datasets.records import IGNORE
from vidseg_core.models.protocol import Segmenter
from vidseg_core.training.attempt import Attempt, AttemptOptions, Part, Row, TrainingError, Watch
from vidseg_core.training.flow_clips import ClipPair, FlowClip, draw_pair
from vidseg_core.training.flow_loss import (
    exact_loss,
    label_loss,
    photometric_loss,
    scores_loss,
    task_loss,
    warp_scaled,
)
from vidseg_core.training.group import Solo
from vidseg_core.training.moved import MovedPair, moved_pair, vary
from vidseg_core.training.optimise import Average, build_optimiser, learning_rate, set_learning_rate

PARTS = ("exact", "photo", "task")
"""The losses, in the order in which workers add them up."""
MAX_GRADIENT = 1.0
"""Gradients are scaled down to this norm: a pair without any overlap must not throw the net off course."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowBatch:
    """Pairs of one step, made ones first: all of them, or one worker's."""

    exact: Sequence[MovedPair]
    drawn: Sequence[ClipPair]

    numbers: Sequence[int]
    """Which pairs of the step these are."""

    @property
    def ids(self) -> list[str]:
        """Every pair in words."""
        made = self.numbers[: len(self.exact)]
        return [f"made pair {number}" for number in made] + [p.ids for p in self.drawn]


class FlowData:
    """Batches by step."""

    def __init__(self, clips: Sequence[FlowClip], recipe: FlowRecipe, seed: int) -> None:
        self._moving = [clip for clip in clips if clip.moves]
        self._pictures = [picture_HW3 for clip in clips for picture_HW3 in clip.frames_THW3]
        self._recipe, self._seed = recipe, seed
        if not self._pictures:
            raise TrainingError("no clips to train on")

    def batch(self, step: int, numbers: Sequence[int] | None = None) -> FlowBatch:
        """The given pairs of `step` (all by default), equal whenever and by whomever they are asked for."""
        recipe = self._recipe
        size, total = (recipe.height, recipe.width), recipe.batch
        exact = total if not self._moving else round(total * recipe.exact_share)
        chosen = range(total) if numbers is None else numbers
        random = {number: np.random.default_rng((self._seed, step, number)) for number in chosen}
        made = [moved_pair(self._pictures, random[number], *size) for number in chosen if number < exact]
        drawn = [
            draw_pair(self._moving, random[n], height=size[0], width=size[1], max_gap=recipe.max_gap)
            for n in chosen
            if n >= exact
        ]
        return FlowBatch(exact=made, drawn=drawn, numbers=tuple(chosen))


@dataclass(frozen=True, kw_only=True)
class FlowLoopOptions(AttemptOptions):
    """What the loop is given besides net, data and recipe."""

    val_every: int | None = None
    log_every: int = 50
    device: str = "cpu"


def train_flow(
    net: nn.Module,
    clips: Sequence[FlowClip],
    recipe: FlowRecipe,
    options: FlowLoopOptions,
    *,
    segmenter: Segmenter | None = None,
    group: Solo | None = None,
    watch: Watch | None = None,
) -> dict[str, torch.Tensor]:
    """Train to the last step of the recipe, from the folder's checkpoint if there is one; the weights.

    With `segmenter` (N, frozen) its scores on the key frame are warped, and where the current frame has no
    labels, its own output there is the truth. A net with a scale field needs it, and warps what the field is
    for. `TrainingError` names step and pairs of a loss that is no number.
    """
    loop = _FlowLoop(net, FlowData(clips, recipe, options.seed), recipe, options, segmenter, group, watch)
    loop.run()
    return loop.weights()


class _FlowLoop(Attempt[FlowLoopOptions, nn.Module]):
    advice = "A lower --recipe.lr or a longer warm-up usually helps"

    def __init__(
        self,
        net: nn.Module,
        data: FlowData,
        recipe: FlowRecipe,
        options: FlowLoopOptions,
        segmenter: Segmenter | None,
        group: Solo | None,
        watch: Watch | None,
    ) -> None:
        super().__init__(options, recipe.steps, net, group, watch)
        self._data, self._recipe = data, recipe
        self._numbers = range(self.group.rank, recipe.batch, self.group.size)
        self._device = torch.device(options.device)
        net.to(self._device).train()
        self._scale_level = scale_level(net)
        if self._scale_level and segmenter is None:
            raise TrainingError("a scale field needs a segmenter whose scores or features it multiplies")
        self._segmenter = segmenter.to(self._device) if segmenter else None
        self._optimiser = build_optimiser(net, recipe.train)
        self._average = Average(net, recipe.ema) if recipe.ema else None
        self._pairs: Sequence[str] = ()

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that count: the average, if there is one."""
        return dict(self._average.state if self._average else self.net.state_dict())

    def step(self, number: int) -> None:
        batch = self._data.batch(number, self._numbers)
        self._pairs = batch.ids
        set_learning_rate(self._optimiser, learning_rate(self._recipe.train, number))
        parts = self._losses(batch, number)
        values = self._agree(number, parts)
        self._optimiser.zero_grad(set_to_none=True)
        if parts:
            (torch.stack(list(parts.values())).sum() * self.group.size).backward()
        self.group.average_gradients(self.net.parameters())
        nn.utils.clip_grad_norm_(self.net.parameters(), MAX_GRADIENT)
        self._optimiser.step()
        if self._average is not None:
            self._average.update(self.net, number)
        self.measure(**values)

    def _agree(self, step: int, parts: dict[str, torch.Tensor]) -> dict[str, float]:
        """The losses over all workers; all of them stop together if one of them is no number."""
        values = [float(parts[name].detach()) if name in parts else 0.0 for name in PARTS]
        bad = not all(map(math.isfinite, values))
        held = [float(name in parts) for name in PARTS]
        sums = self.group.sum(torch.tensor([*([0.0] * len(PARTS) if bad else values), *held, float(bad)]))
        *totals, stops = sums.tolist()
        if stops:
            named = [text for texts in self.group.gather(self.seen() if bad else []) for text in texts]
            self.stop("the loss is not a number", step, named)
        return {name: totals[n] for n, name in enumerate(PARTS) if totals[n + len(PARTS)]}

    def seen(self) -> Sequence[str]:
        return self._pairs

    def _losses(self, batch: FlowBatch, step: int) -> dict[str, torch.Tensor]:
        recipe, made = self._recipe, len(batch.exact)
        looks = [
            _look(p, self.options.seed, step, number)
            for number, p in zip(batch.numbers[made:], batch.drawn, strict=True)
        ]
        current = self._pictures([p.current_HW3 for p in batch.exact] + [a for a, _ in looks])
        key = self._pictures([p.key_HW3 for p in batch.exact] + [b for _, b in looks])
        flows, scale_BCqq = self._flows(current, key)
        total = recipe.batch
        parts: dict[str, torch.Tensor] = {}
        if made:
            truth_B2hw = self._tensor([p.flow_HW2 for p in batch.exact]).permute(0, 3, 1, 2)
            parts["exact"] = exact_loss([flow[:made] for flow in flows], truth_B2hw).sum() / total
        if batch.drawn:
            finest, pairs = flows[-1][made:], batch.drawn
            clean, clean_key = (
                self._pictures([p.current_hw3 for p in pairs]),
                self._pictures([p.key_hw3 for p in pairs]),
            )
            weight = min(1.0, (step + 1) / max(1.0, recipe.warm_share * recipe.steps)) / total
            if recipe.photo:
                photo = photometric_loss(clean, clean_key, finest, recipe.smooth).sum()
                parts["photo"] = photo * (weight * recipe.photo)
            if recipe.task:
                scale = None if scale_BCqq is None else scale_BCqq[made:]
                parts["task"] = self._task(clean, clean_key, finest, scale, pairs) * (weight * recipe.task)
        return parts

    def _flows(
        self, current: torch.Tensor, key: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Flows from coarse to fine, and the scale map if the net has one."""
        if self._scale_level is None:
            return _all_sizes(self.net, current, key), None
        return self.net.levels_and_scale(current, key)  # type: ignore[operator]

    def _task(
        self,
        current: torch.Tensor,
        key: torch.Tensor,
        flow_B2hw: torch.Tensor,
        scale_BCqq: torch.Tensor | None,
        pairs: Sequence[ClipPair],
    ) -> torch.Tensor:
        labels_Bhw = self._tensor([p.labels_hw for p in pairs]).long()
        if self._segmenter is None:
            key_labels_Bhw = self._tensor([p.key_labels_hw for p in pairs]).long()
            return label_loss(key_labels_Bhw, flow_B2hw, labels_Bhw).sum()
        segmenter = self._segmenter
        with torch.no_grad():
            feats = segmenter.features(key)
            scores_BChw = segmenter.head(feats)
            said_Bhw = segmenter.head(segmenter.features(current)).argmax(1)
        unlabelled_B = (labels_Bhw == IGNORE).all(2).all(1)
        labels_Bhw = torch.where(unlabelled_B[:, None, None], said_Bhw, labels_Bhw)
        if scale_BCqq is None:
            return task_loss(scores_BChw.float(), flow_B2hw, labels_Bhw).sum()
        if self._scale_level == "scores":
            (warped,) = warp_scaled([scores_BChw.float()], flow_B2hw, scale_BCqq)
        else:
            maps = [feats] if isinstance(feats, torch.Tensor) else list(feats)
            moved = warp_scaled(maps, flow_B2hw, scale_BCqq)
            warped = segmenter.head(moved[0] if isinstance(feats, torch.Tensor) else tuple(moved))
        return scores_loss(warped, labels_Bhw).sum()

    def _tensor(self, arrays: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self._device)

    def _pictures(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        return self._tensor(pictures).permute(0, 3, 1, 2).float().div(255.0).contiguous()

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


def scale_level(net: nn.Module) -> str | None:
    """What the net's scale field is for, if it has one."""
    head = getattr(net, "scale", None)
    return None if head is None else str(head.level)


def _look(pair: ClipPair, seed: int, step: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """What the net sees of a pair: in varied light; the losses see the pictures as they are."""
    return vary(pair.current_hw3, pair.key_hw3, np.random.default_rng((seed, step, number, 1)))


def _all_sizes(net: nn.Module, current: torch.Tensor, key: torch.Tensor) -> list[torch.Tensor]:
    """Flows from coarse to fine; a net that gives only one is trained on that one."""
    levels: Callable[..., list[torch.Tensor]] | None = getattr(net, "levels", None)
    return levels(current, key) if levels is not None else [net(current, key)]
