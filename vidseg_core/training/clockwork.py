"""What Clockwork learns: the score layer of its adaptive clock, N frozen (`models.clockwork`).

Model: the layer should give low-level features the classes that N itself gives the frame. Its labels change
where the frame's do, and that is all that the clock asks.

Legend: B frames, C classes, h, w crop size; y, x size of the low-level map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as functional
from numpy.random import Generator

from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.models.clockwork import ClockNet, new_clock, read_clock
from vidseg_core.models.propagation_file import facts_metadata
from vidseg_core.models.protocol import Segmenter, parts_of
from vidseg_core.models.trainable import weights_bytes
from vidseg_core.propagation.clockwork import AllButCoarsest
from vidseg_core.training.flow_clips import ClipCut, FlowClip, cut_out
from vidseg_core.training.flow_loss import divergence
from vidseg_core.training.learner import Learner
from vidseg_core.training.propagation_score import Scores, score_propagator

FILE = "clockwork.safetensors"


class ClockLearner(Learner):
    """Cuts are single frames."""

    losses = ("scores",)
    file_names = (FILE,)
    net: ClockNet

    def __init__(self, config: TrainPropagationConfig, segmenter: Segmenter, device: str) -> None:
        super().__init__(config, segmenter, device)
        self._parts = parts_of(segmenter, "clockwork")
        self.net = new_clock(segmenter, seed=config.seed, device=device).to(self.device)

    def draw(self, clips: Sequence[FlowClip], random: Generator) -> ClipCut:
        clip = clips[int(random.integers(len(clips)))]
        number = int(random.integers(len(clip.frames_THW3)))
        return cut_out(clip, [number], random, height=self.recipe.height, width=self.recipe.width)

    def judge(self, cuts: Sequence[ClipCut]) -> Mapping[str, torch.Tensor]:
        with torch.no_grad():
            low = self._parts.low(self.pictures([cut.frames_Thw3[0] for cut in cuts]))
            said_BChw = self.segmenter.head(self._parts.high(low))
        scores_BCyx = self.net(low)
        wanted = functional.interpolate(
            said_BChw, scores_BCyx.shape[2:], mode="bilinear", align_corners=False
        )
        return {"scores": divergence(scores_BCyx, wanted)}

    def files(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, bytes]:
        facts = facts_metadata("clockwork", self.net.facts)
        return {FILE: weights_bytes(weights, self.segmenter.class_names, **facts)}

    def read(self, folder: Path) -> tuple[Segmenter, AllButCoarsest]:
        return self.segmenter, AllButCoarsest()

    def score(self, folder: Path, clips: Sequence[FlowClip]) -> Scores:
        """What it shows between keys does not depend on the layer; what the layer reports is ranked."""
        layer = read_clock(str(folder / FILE)).to(self.device)
        segmenter, propagator = self.read(folder)
        return score_propagator(
            propagator,
            segmenter,
            clips,
            self.config.gap_numbers,
            device=str(self.device),
            expects=lambda pair: layer.changed(pair.key.low, pair.low),
        )

    def use(self, folder: Path) -> str:
        return (
            "--propagation.name clockwork --propagation.level features --propagation.sides one "
            f"--scheduler.name low_change --scheduler.policy {folder / FILE}"
        )
