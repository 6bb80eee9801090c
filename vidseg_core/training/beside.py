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

import torch
from torch import nn

from vidseg_core.config.train_segmenter import TrainSegmenterConfig
from vidseg_core.datasets.records import IGNORE
from vidseg_core.models.size import net_of
from vidseg_core.models.trainable import TrainableNet
from vidseg_core.training.conv_lstm import ConvLstm, multi_loss
from vidseg_core.training.distil import grid, pair_loss, self_similarities, single_loss
from vidseg_core.training.loss import segmentation_loss
from vidseg_core.training.neighbours import COUNT
from vidseg_core.training.samples import Batch, Near
from vidseg_core.training.teacher import Seen, Teacher, of_frame
from vidseg_core.training.temporal_loss import FrozenFlow, temporal_loss, visible

Autocast = Callable[[], AbstractContextManager[object]]
OnLabels = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The run's loss of scores_BCHW on labels_BHW."""
OPTIONS: Mapping[str, str] = {
    "neighbours": "--temporal.labels",
    "temporal": "--temporal.weight",
    "single": "--distil.single",
    "pair": "--distil.pair",
    "multi": "--distil.multi",
}
"""The losses by name, in the order in which they are added, each with the option that is its weight."""
TIMES = 1 + COUNT


class Beside(nn.Module):
    """The losses of a run, and what is trained for them beside the net."""

    def __init__(self, config: TrainSegmenterConfig, class_names: Sequence[str], device: str) -> None:
        """`ConfigError` for a flow or a teacher that cannot be used."""
        super().__init__()
        self._temporal, self._distil = config.temporal, config.distil
        near, taught = config.temporal.gap > 0, config.taught_by is not None
        weights = {
            "neighbours": near * config.temporal.labels,
            "temporal": near * config.temporal.weight,
            "single": taught * config.distil.single,
            "pair": near * taught * config.distil.pair,
            "multi": near * taught * config.distil.multi,
        }
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self._flow = self.teacher = None
        if "temporal" in self.weights:
            self._flow = FrozenFlow(config.temporal, device=device, seed=config.seed)
        if taught:
            self.teacher = Teacher(config, class_names, device)
        self.lstm = ConvLstm(config.seed) if "multi" in self.weights else None

    @property
    def losses(self) -> tuple[str, ...]:
        """The names of those that there are."""
        return tuple(self.weights)

    def decides(self) -> dict[str, str]:
        """What else decides the weights than options and data, by name."""
        flow = {} if self._flow is None else {"flow_weights": self._flow.digest}
        return flow | ({} if self.teacher is None else {"teacher_weights": self.teacher.digest})

    def frozen(self) -> list[nn.Module]:
        """The nets that are run and not trained: the teacher's, and F's where it has one."""
        estimator = None if self._flow is None else self._flow.estimator
        teacher = None if self.teacher is None else self.teacher.segmenter
        return [net for net in map(net_of, (teacher, estimator)) if net is not None]

    def try_on(self, side: int) -> None:
        """`ConfigError` for parts that cannot take crops of this side."""
        if self._flow is not None:
            self._flow.try_on(side)
        if self.teacher is not None:
            self.teacher.try_on((side, side))

    def after_step(self) -> None:
        """Keep what is trained here in its range."""
        if self.lstm is not None:
            self.lstm.clip()

    def judge(
        self,
        net: TrainableNet,
        batch: Batch,
        autocast: Autocast,
        on_labels: OnLabels = segmentation_loss,
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Scores of the frames, and the losses by name, weighted, as numbers of the batch, which lies where
        the net does."""
        frames_B3HW, near = batch.frames_B3HW, batch.near
        seen, frames = see(net, frames_B3HW, near, autocast), in_time(frames_B3HW, near)
        terms: dict[str, torch.Tensor] = {}
        if near is not None:
            terms |= self._agreement(frames, seen, near, on_labels)
        if self.teacher is not None:
            terms |= self._lessons(frames, seen, near, autocast)
        weighted = {name: self.weights[name] * terms[name] for name in OPTIONS if name in terms}
        return seen.scores[len(frames) // 2], weighted

    def _agreement(
        self, frames: Sequence[torch.Tensor], seen: Seen, near: Near, on_labels: OnLabels
    ) -> dict[str, torch.Tensor]:
        """What neighbours give by themselves."""
        terms = {}
        if "neighbours" in self.weights:
            others_BCHW = torch.cat([seen.scores[0], seen.scores[2]])
            labels_BHW = near.labels_KHW.transpose(0, 1).flatten(0, 1)
            found_BHW = near.found.repeat(COUNT)[:, None, None]
            labels_BHW = torch.where(found_BHW, labels_BHW, torch.full_like(labels_BHW, IGNORE))
            terms["neighbours"] = on_labels(others_BCHW, labels_BHW)
        if self._flow is not None:
            pairs = [self._pair_in_time(frames, seen, time) for time in range(TIMES - 1)]
            terms["temporal"] = mean_of(torch.stack(pairs).mean(0), near.found)
        return terms

    def _lessons(
        self, frames: Sequence[torch.Tensor], seen: Seen, near: Near | None, autocast: Autocast
    ) -> dict[str, torch.Tensor]:
        """What the teacher says."""
        assert self.teacher is not None
        now, terms = len(frames) // 2, dict[str, torch.Tensor]()
        of_all = near is not None and not self.weights.keys().isdisjoint(("pair", "multi"))
        wanted = self.teacher(frames if of_all else [frames[now]], autocast)
        if "single" in self.weights:
            terms["single"] = single_loss(seen.scores[now], wanted.scores[len(wanted.scores) // 2]).mean()
        if near is not None and "pair" in self.weights:
            cells = self._distil.pair_cells
            times = [slice(time, time + 2) for time in range(TIMES - 1)]
            pairs = [pair_loss(seen.scores[time], wanted.scores[time], cells) for time in times]
            terms["pair"] = mean_of(torch.stack(pairs).mean(0), near.found)
        if near is not None and self.lstm is not None:
            sides = grid([*seen.features, *wanted.features], self._distil.multi_cells)
            ours, theirs = (self_similarities(each.features, sides) for each in (seen, wanted))
            terms["multi"] = mean_of(multi_loss(self.lstm, ours, theirs), near.found)
        return terms

    def _pair_in_time(self, frames: Sequence[torch.Tensor], seen: Seen, time: int) -> torch.Tensor:
        """(B,): Eq. 3 of the pair that begins at this place in time."""
        assert self._flow is not None
        now, there = frames[time], frames[time + 1]
        flow_B2HW = self._flow(now, there)
        visible_BHW = visible(now, there, flow_B2HW, self._temporal.sharpness)
        return temporal_loss(seen.scores[time], seen.scores[time + 1], flow_B2HW, visible_BHW)


def in_time(frames_B3HW: torch.Tensor, near: Near | None) -> list[torch.Tensor]:
    """The frames, with their neighbours around them where there are any."""
    if near is None:
        return [frames_B3HW]
    before, after = near.frames_K3HW.unbind(1)
    return [before, frames_B3HW, after]


def see(net: TrainableNet, frames_B3HW: torch.Tensor, near: Near | None, autocast: Autocast) -> Seen:
    """What the net makes of the frames and their neighbours, in one pass."""
    frames = in_time(frames_B3HW, near)
    with autocast():
        features, scores = net.features_and_scores(torch.cat(frames))
    features = of_frame(features, (scores.shape[2], scores.shape[3]), net.net.stride)
    return Seen(scores.float().chunk(len(frames)), features.float().chunk(len(frames)))


def mean_of(losses_B: torch.Tensor, counts_B: torch.Tensor) -> torch.Tensor:
    """Their mean over the frames that count; 0 if none does."""
    zero_B = torch.zeros_like(losses_B)
    return torch.where(counts_B, losses_B, zero_B).sum() / counts_B.sum().clamp_min(1)
