"""What LVS learns, with N frozen: how features are carried, and when they have changed (`models.lvs`).

Model: the key's features are carried to the frame, and should be N's own there, as should the scores that
N_task makes of them; labels may judge these, too. N's own features teach all classes alike, where labels of
few clips favour the large ones. The deviation net learns the share of pixels that N labels differently in the
two frames (LVS 2.2). Kernel predictor and AdaptNet learn jointly (2.3); of N's own weights LVS says nothing.

Legend: B pairs, h, w crop size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.random import Generator
from torch import nn

from vidseg_core.config.errors import check
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.models.lvs import lvs_metadata, new_lvs
from vidseg_core.models.protocol import Segmenter, parts_of
from vidseg_core.models.trainable import weights_bytes
from vidseg_core.propagation.lvs import Lvs
from vidseg_core.training.flow_clips import ClipCut, FlowClip, cut_out
from vidseg_core.training.flow_loss import scores_loss
from vidseg_core.training.learner import Learner

FILE = "lvs.safetensors"
SOON = 4
"""Frames after a key for which what was carried to it may be used, in training."""
LEAST = 1e-3
"""Share of pixels: one in a thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """N on some pictures, in parts."""

    low: torch.Tensor
    maps: list[torch.Tensor]
    scores: torch.Tensor


class LvsLearner(Learner):
    """Cuts are (frame, key) or (frame, key, the key before it)."""

    losses = ("scores", "features", "labels", "deviation")
    file_names = (FILE,)

    def __init__(self, config: TrainPropagationConfig, segmenter: Segmenter, device: str) -> None:
        super().__init__(config, segmenter, device)
        self._parts = parts_of(segmenter, "lvs")
        self.net = self._lvs = new_lvs(segmenter, kernel=config.kernel, seed=config.seed, device=device).to(
            self.device
        )

    def check(self, clips: Sequence[FlowClip]) -> None:
        has_labels = any(clip.labels_THW is not None for clip in clips)
        problem = f"no clip has labels of the classes of {self.segmenter.name}"
        check(has_labels or not self.recipe.labels, "--recipe.labels", problem)

    @property
    def apart(self) -> Sequence[nn.Module]:
        return [self._lvs.carrier, self._lvs.deviation]  # neither holds the other back

    def draw(self, clips: Sequence[FlowClip], random: Generator) -> ClipCut:
        """As a schedule has it: an interval is drawn (all octaves alike), then a frame within it.

        Sometimes the key is one that shows what was carried to it from the key before (2.4), with the frame
        near it."""
        clip, recipe = clips[int(random.integers(len(clips)))], self.recipe
        last = len(clip.frames_THW3) - 1
        interval = min(last, round(recipe.max_gap ** random.random()))
        before = gap = int(random.integers(1, interval + 1))
        again = random.random() < recipe.twice and last >= 2
        if again:
            before = min(before, last - 1)
            gap = int(random.integers(1, min(SOON, last - before) + 1))
        steps = (0, before, before + gap) if again else (0, gap)
        first = int(random.integers(last - steps[-1] + 1))
        numbers = [first + step for step in steps]
        if random.random() < 0.5:
            numbers = [2 * first + steps[-1] - number for number in numbers]  # the clip backwards
        return cut_out(clip, numbers[::-1], random, height=recipe.height, width=recipe.width)

    def judge(self, cuts: Sequence[ClipCut]) -> Mapping[str, torch.Tensor]:
        net = self._lvs
        with torch.no_grad():
            now, key = (self._look([cut.frames_Thw3[place] for cut in cuts]) for place in (0, 1))
            changed_B = (key.scores.argmax(1) != now.scores.argmax(1)).float().mean(dim=(1, 2))
            self._fill_keys(key, cuts)
        labels_Bhw = self.tensor([cut.labels_Thw[0] for cut in cuts]).long()
        fused = net.carrier(key.low, now.low, key.maps[0].float())
        scores = self.segmenter.head(fused if len(key.maps) == 1 else (fused, *key.maps[1:]))
        return {
            "scores": _divergence(scores, now.scores),
            "features": _distance(fused, now.maps[0].float()),
            "labels": scores_loss(scores, labels_Bhw),
            "deviation": _misjudged(net.deviation(key.low, now.low), changed_B),
        }

    def _fill_keys(self, key: _Seen, cuts: Sequence[ClipCut]) -> None:
        """Keys with another one before them show what is carried to them from there."""
        places = [place for place, cut in enumerate(cuts) if len(cut.numbers) > 2]
        if places:
            older = self._look([cuts[place].frames_Thw3[2] for place in places])
            filled = self._lvs.carrier(older.low, key.low[places], older.maps[0].float())
            key.maps[0][places] = filled.to(key.maps[0].dtype)

    def _look(self, pictures: Sequence[np.ndarray]) -> _Seen:
        """The pictures as N sees them."""
        low = self._parts.low(self.pictures(pictures))
        high = self._parts.high(low)
        maps = [high] if isinstance(high, torch.Tensor) else list(high)
        return _Seen(low=self._lvs.low_of(low).float(), maps=maps, scores=self.segmenter.head(high))

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
