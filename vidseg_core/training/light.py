"""What Accel and GRFP learn: a light net, and how its scores are joined with N's (`models.light`).

Model: N is frozen, and the light net learns to say what N says. Accel's fusion learns beside it, with
branches that it does not change, by cross-entropy from the mask that N makes of the frame. (From N's scores
it learned nothing that the light net did not know alone; from the clips' labels, as in the paper, it learned
on few clips to say rare classes less often than N does.) The light net soon knows few clips by heart, and a
fusion that learned there trusts it as much on others. With `recipe.crossed` two more are trained, each on one
half of the clips, and the fusion learns from what each says of the other half (as in stacked generalization,
Wolpert 1992); they are dropped at the end. What GRFP gives should
be what N itself says of the frame, and labels may judge it, too. Accel learns from a frame and its key, GRFP
from `recipe.frames` consecutive ones, the first a key: N's scores there are the state that the others begin
with. Flow is DIS, as in a run by default. The papers train N along.

Legend: B samples, T frames of a sample, C classes, h, w crop size.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.random import Generator
from torch import nn

from vidseg_core.config.errors import check
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.engine.look import make_view
from vidseg_core.models.digest import digest_file
from vidseg_core.models.light import AccelNet, BesideNet, GrfpNet, light_facts
from vidseg_core.models.propagation_file import facts_metadata
from vidseg_core.models.protocol import Segmenter
from vidseg_core.models.trainable import weights_bytes
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.propagation.light import Accel, Grfp, Update, warped_state
from vidseg_core.propagation.warp import warp_maps
from vidseg_core.training.flow_clips import ClipCut, FlowClip, cut_out, pair_cut
from vidseg_core.training.flow_loss import divergence, scores_loss
from vidseg_core.training.learner import Learner
from vidseg_core.training.propagation_score import Scores, score_propagator


class _LightLearner(Learner):
    name: ClassVar[str]
    nets: ClassVar[type[BesideNet]]
    net: BesideNet

    def __init__(self, config: TrainPropagationConfig, segmenter: Segmenter, device: str) -> None:
        super().__init__(config, segmenter, device)
        self._flow = DisFlow(chained=False)
        self.file = self.file_names[0]
        facts = light_facts(segmenter, str(config.light))
        self.net = self.nets(facts, weights=config.light_weights, seed=config.seed).to(self.device)

    def decides(self) -> dict[str, str]:
        file = self.config.light_weights
        return {"light_weights": digest_file(Path(file))} if file else {}

    def _said(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """N's scores, (B, C, h, w)."""
        with torch.no_grad():
            return self.segmenter.head(self.segmenter.features(self.pictures(frames)))

    def files(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, bytes]:
        facts = facts_metadata(self.name, self.net.facts)
        return {self.file: weights_bytes(weights, self.segmenter.class_names, **facts)}


HALVES = 2
"""Of the clips, in turn."""
TWINS = "twins"


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfCut:
    """(frame, key) of a clip, and which half of the clips that is in; -1: there is no other clip."""

    cut: ClipCut
    half: int

    @property
    def ids(self) -> str:
        """The frames in words."""
        return self.cut.ids


class AccelLearner(_LightLearner):
    """Each half of the clips has a twin of the light net that learns from it alone (`recipe.crossed`)."""

    losses = ("fused", "light")
    name, nets = "accel", AccelNet
    file_names = ("accel.safetensors",)
    net: AccelNet

    def __init__(self, config: TrainPropagationConfig, segmenter: Segmenter, device: str) -> None:
        super().__init__(config, segmenter, device)
        twins = HALVES if self.recipe.crossed else 0
        self._twins = nn.ModuleList(copy.deepcopy(self.net.light) for _ in range(twins))
        self.net.add_module(TWINS, self._twins)  # trained, stored and resumed with it

    def check(self, clips: Sequence[FlowClip]) -> None:
        halves = len({clip.name for clip in clips if clip.moves}) > 1
        check(halves or not self.recipe.crossed, "--recipe.crossed", "wants clips of two names or more")
        super().check(clips)

    def draw(self, clips: Sequence[FlowClip], random: Generator) -> HalfCut:
        recipe = self.recipe
        cut = pair_cut(clips, random, height=recipe.height, width=recipe.width, max_gap=recipe.max_gap)
        names = list(dict.fromkeys(clip.name for clip in clips))  # two data sets may have a name in common
        return HalfCut(cut=cut, half=names.index(cut.clip) % HALVES if len(names) > 1 else -1)

    def judge(self, cuts: Sequence[HalfCut]) -> Mapping[str, torch.Tensor]:
        now, key = ([each.cut.frames_Thw3[place] for each in cuts] for place in (0, 1))
        wanted, reference = self._said(now), self._warped(self._said(key), now, key)
        pictures = self.pictures(now)
        update = self.net.light(pictures)
        light, unseen = divergence(update, wanted), update.detach().clone()
        for half, twin in enumerate(self._twins):
            mine, others = (
                [n for n, each in enumerate(cuts) if each.half == one] for one in (half, 1 - half)
            )
            if mine:
                twin.train(len(mine) > 1 or len(cuts) == 1)  # a net that pools has no statistics of one alone
                lesson = divergence(twin(pictures[mine]), wanted[mine])
                twin.train()
                light = light.index_add(0, torch.tensor(mine).to(light.device), lesson - lesson.detach())
            if others:
                unseen[others] = _as_run(twin, pictures[others])
        return {"fused": scores_loss(self.net(reference, unseen), wanted.argmax(1)), "light": light}

    @property
    def apart(self) -> Sequence[nn.Module]:
        return [self.net.fuse, self.net.light, *self._twins]  # none holds another back

    def files(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, bytes]:
        return super().files({name: w for name, w in weights.items() if not name.startswith(TWINS)})

    def _warped(
        self, scores_BChw: torch.Tensor, now: Sequence[np.ndarray], key: Sequence[np.ndarray]
    ) -> torch.Tensor:
        flows = self._flow.flow(*([_gray(frame_hw3) for frame_hw3 in frames] for frames in (now, key)))
        warped = [warp_maps(*each) for each in zip(scores_BChw, flows, strict=True)]
        return torch.stack(warped)

    def read(self, folder: Path) -> tuple[Segmenter, Accel]:
        return self.segmenter, Accel(str(folder / self.file), device=str(self.device))

    def use(self, folder: Path) -> str:
        return (
            f"--propagation.name accel --propagation.level scores --propagation.weights {folder / self.file}"
        )

    def score(self, folder: Path, clips: Sequence[FlowClip]) -> Scores:
        """Beside its branches: the warped scores, and the light net alone."""
        segmenter, propagator = self.read(folder)
        light, gaps = Update(str(folder / self.file), device=str(self.device)), self.config.gap_numbers
        return score_propagator(propagator, segmenter, clips, gaps, device=str(self.device), beside=[light])


@torch.no_grad()
def _as_run(net: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """Its scores with running statistics, which learn nothing from these pictures."""
    net.eval()
    scores = net(pictures)
    net.train()
    return scores


class GrfpLearner(_LightLearner):
    """Cuts are a key and the frames after it, or before it."""

    losses = ("scores", "light", "labels")
    name, nets = "grfp", GrfpNet
    file_names = ("grfp.safetensors",)
    net: GrfpNet

    def draw(self, clips: Sequence[FlowClip], random: Generator) -> ClipCut:
        clip = clips[int(random.integers(len(clips)))]
        count = min(self.recipe.frames, len(clip.frames_THW3))
        first = int(random.integers(len(clip.frames_THW3) - count + 1))
        numbers = range(first, first + count)
        numbers = numbers if random.random() < 0.5 else numbers[::-1]
        return cut_out(clip, numbers, random, height=self.recipe.height, width=self.recipe.width)

    def judge(self, cuts: Sequence[ClipCut]) -> Mapping[str, torch.Tensor]:
        """All frames of all cuts go through N and the light net together; cuts of short clips are shorter."""
        lengths = [len(cut.numbers) for cut in cuts]
        frames = [frame_hw3 for cut in cuts for frame_hw3 in cut.frames_Thw3]
        said, update = self._said(frames).split(lengths), self.net.light(self.pictures(frames)).split(lengths)
        found = [self._one(*each) for each in zip(cuts, said, update, strict=True)]
        return {name: torch.stack([each[name] for each in found]) for name in self.losses}

    def _one(self, cut: ClipCut, wanted: torch.Tensor, update: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Means over the frames after the key."""
        grays, state, states = [_gray(frame_hw3) for frame_hw3 in cut.frames_Thw3], wanted[0], []
        for number in range(1, len(grays)):
            warped_Chw, difference_hw = warped_state(state, grays[number - 1], grays[number], self._flow)
            difference_11hw = self.tensor([difference_hw])[:, None]
            state = self.net(warped_Chw[None], update[number : number + 1], difference_11hw)[0]
            states.append(state)
        states_Thw = torch.stack(states)
        labels_Thw = self.tensor(cut.labels_Thw[1:]).long()
        return {
            "scores": divergence(states_Thw, wanted[1:]).mean(),
            "light": divergence(update[1:], wanted[1:]).mean(),
            "labels": scores_loss(states_Thw, labels_Thw).mean(),
        }

    def read(self, folder: Path) -> tuple[Segmenter, Grfp]:
        return self.segmenter, Grfp(str(folder / self.file), device=str(self.device))

    def use(self, folder: Path) -> str:
        return (
            "--propagation.name grfp --propagation.level scores --propagation.sides one "
            f"--propagation.weights {folder / self.file}"
        )


def _gray(frame_hw3: np.ndarray) -> np.ndarray:
    return make_view(frame_hw3, max(frame_hw3.shape), 1)
