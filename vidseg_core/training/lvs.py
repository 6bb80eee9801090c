"""What LVS learns, with N frozen: how features are carried, and when they have changed (`models.lvs`).

Model: the key's features are carried to the frame, and should be N's own there, as should the scores that
N_task makes of them; labels may judge these, too. N's own features teach all classes alike, where labels of
few clips favour the large ones. The deviation net learns which share of the pixels N labels differently in
the two frames (LVS 2.2), at each place by itself. Kernel predictor and AdaptNet learn jointly (2.3); of N's
own weights LVS says nothing.

Legend: B pairs, h, w crop size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.random import Generator
from torch import nn

from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.models.lvs import DeviationNet, lvs_metadata, new_lvs
from vidseg_core.models.protocol import Segmenter, parts_of
from vidseg_core.models.trainable import weights_bytes
from vidseg_core.propagation.lvs import Lvs
from vidseg_core.training.flow_clips import ClipCut, FlowClip, cut_out
from vidseg_core.training.flow_loss import divergence, scores_loss
from vidseg_core.training.learner import Learner

FILE = "lvs.safetensors"
SOON = 4
"""Frames after a key for which what was carried to it may be used, in training."""
OTHERS = 2
"""More frames after the key: together they are pairs to tell apart by how much has changed."""
FAR = 25
"""Frames from the key at which these are, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """N on some pictures, in parts."""

    low: torch.Tensor
    maps: list[torch.Tensor]
    scores: torch.Tensor


class LvsLearner(Learner):
    """Cuts are (frame, key, `OTHERS` more) and, where the key was filled itself, the key before it."""

    losses = ("scores", "features", "labels", "deviation")
    file_names = (FILE,)

    def __init__(self, config: TrainPropagationConfig, segmenter: Segmenter, device: str) -> None:
        super().__init__(config, segmenter, device)
        self._parts = parts_of(segmenter, "lvs")
        self.net = self._lvs = new_lvs(segmenter, kernel=config.kernel, seed=config.seed, device=device).to(
            self.device
        )
        assert isinstance(self._lvs.deviation, DeviationNet)
        self._deviation = self._lvs.deviation

    def decides(self) -> dict[str, str]:
        return {"deviation": "by place", "carrier": "expects"}  # checkpoints of before hold other nets

    @property
    def apart(self) -> Sequence[nn.Module]:
        return [self._lvs.carrier, self._lvs.deviation]  # neither holds the other back

    def draw(self, clips: Sequence[FlowClip], random: Generator) -> ClipCut:
        """Frames of the longest interval, as a schedule has them: all distances from the key alike. Those
        that are only ranked may be farther from it, since a scheduler that waits asks about them.

        Sometimes the key is one that shows what was carried to it from the key before (2.4), with the frame
        near it.
        """
        clip, recipe = clips[int(random.integers(len(clips)))], self.recipe
        last = len(clip.frames_THW3) - 1
        interval = min(last, recipe.max_gap)
        again = random.random() < recipe.twice and last >= 2
        before = min(int(random.integers(1, interval + 1)), last - 1) if again else 0
        reach = min(interval, last - before)
        gap = int(random.integers(1, (min(SOON, reach) if again else reach) + 1))
        others = random.integers(1, min(FAR, last - before) + 1, OTHERS).tolist()
        steps = [before + gap, before, *(before + other for other in others), *([0] if again else [])]
        first = int(random.integers(last - max(steps) + 1))
        numbers = [first + step for step in steps]
        if random.random() < 0.5:
            numbers = [2 * first + max(steps) - number for number in numbers]  # the clip backwards
        return cut_out(clip, numbers, random, height=recipe.height, width=recipe.width)

    def judge(self, cuts: Sequence[ClipCut]) -> Mapping[str, torch.Tensor]:
        net, starts = self._lvs, np.cumsum([0, *(len(cut.numbers) for cut in cuts)])
        now, key = starts[:-1], starts[:-1] + 1
        with torch.no_grad():
            seen = self._look([frame for cut in cuts for frame in cut.frames_Thw3])
            high_key = seen.maps[0][key].float()
            self._fill_keys(high_key, seen, starts)
        fused = net.carrier(seen.low[key], seen.low[now], high_key)
        sizes = [one[now] for one in seen.maps[1:]]
        scores = self.segmenter.head((fused, *sizes) if sizes else fused)
        labels_Bhw = self.tensor([cut.labels_Thw[0] for cut in cuts]).long()
        return {
            "scores": divergence(scores, seen.scores[now]),
            "features": _distance(fused, seen.maps[0][now].float()),
            "labels": scores_loss(scores, labels_Bhw),
            "deviation": self._misjudged(seen, starts),
        }

    def _look(self, pictures: Sequence[np.ndarray]) -> _Seen:
        """The pictures as N sees them."""
        low = self._parts.low(self.pictures(pictures))
        high = self._parts.high(low)
        maps = [high] if isinstance(high, torch.Tensor) else list(high)
        return _Seen(low=self._lvs.low_of(low).float(), maps=maps, scores=self.segmenter.head(high))

    def _fill_keys(self, high_key: torch.Tensor, seen: _Seen, starts: np.ndarray) -> None:
        """Keys with one before them show what is carried to them from there."""
        places = np.flatnonzero(np.diff(starts) > 2 + OTHERS)
        if len(places):
            key, older = starts[places] + 1, starts[places + 1] - 1
            filled = self._lvs.carrier(seen.low[older], seen.low[key], seen.maps[0][older].float())
            high_key[places] = filled

    def _misjudged(self, seen: _Seen, starts: np.ndarray) -> torch.Tensor:
        """(B,): how far off the deviation net is on the pairs of a cut, which are of one scene and scale."""
        labels, costs = seen.scores.argmax(1), []
        for start, end in pairwise(starts.tolist()):
            one, other = map(list, zip(*combinations(range(start, end), 2), strict=True))
            changed_Phw = (labels[one] != labels[other]).float()
            logits_Pyx = self._deviation.logits(seen.low[one], seen.low[other])
            costs.append(_misjudged(logits_Pyx, changed_Phw))
        return torch.stack(costs)

    def files(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, bytes]:
        facts = lvs_metadata(self._lvs.facts)
        return {FILE: weights_bytes(weights, self.segmenter.class_names, **facts)}

    def read(self, folder: Path) -> tuple[Segmenter, Lvs]:
        return self.segmenter, Lvs(str(folder / FILE), device=str(self.device))

    def use(self, folder: Path) -> str:
        return (
            f"--propagation.name lvs --propagation.level features --propagation.sides one "
            f"--propagation.weights {folder / FILE}, and --scheduler.name low_deviation "
            f"--scheduler.policy {folder / FILE}"
        )


def _misjudged(logits_Pyx: torch.Tensor, changed_Phw: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between the expected share of changed labels at each place and the true one."""
    rows, columns = logits_Pyx.shape[1:]
    shares_Pyx = functional.adaptive_avg_pool2d(changed_Phw, (rows, columns))
    return functional.binary_cross_entropy_with_logits(logits_Pyx, shares_Pyx)


def _distance(maps_BChw: torch.Tensor, wanted_BChw: torch.Tensor) -> torch.Tensor:
    """(B,): how far features are from those wanted, in standard deviations of these (Huber)."""
    scale = wanted_BChw.std().clamp(min=1e-6)
    loss = functional.smooth_l1_loss(maps_BChw / scale, wanted_BChw / scale, reduction="none")
    return loss.mean(dim=(1, 2, 3))
