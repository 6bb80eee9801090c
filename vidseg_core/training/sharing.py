"""What FeatureSharing learns: N itself, so that its coarse levels of a key hold for the frames after it.

Model (chapter 4): a cut is a labelled frame (current), a frame before it (key), and the distance d between
them. With F_high the cached levels, P^c the net with the key's F_high and P^k the whole net,

    L = alpha * nll(P^c(current), labels) + (1 - alpha) * [nll(P^k(key), made) + nll(P^k(current), labels)]
        + lambda * |F_high(current) - F_high(key)|,                                  alpha = 1 / (d + 1)

`made` are the labels that N, as it was before training, makes of the key, which has none: so it is
semi-supervised. Of a clip in which only some frames have labels these are the current ones (Fig. 4.1); where
none has any, N makes those of the current frame, too.

Different from the print: its L_nll takes one logarithm of a sum over all pixels and classes, which a single
good pixel satisfies; this is the cross-entropy of each pixel, averaged over those that are labelled. The norm
is a mean over all numbers of all cached levels (L1: absolute, L2: squared differences), so that lambda means
the same for every size. Statistics of batch norms stay those that N comes with: two ways through the net
share them. d is drawn from 1 to `max_gap`, or the same for all cuts (chapter 5 has both).

Legend: B cuts, h, w crop size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.random import Generator
from torch import nn

from vidseg_core.config.recipes import PropagationRecipe
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.datasets.records import IGNORE
from vidseg_core.models.levels import SPLIT, SharingNet
from vidseg_core.models.protocol import Segmenter, SegmenterError
from vidseg_core.models.registry import build_segmenter
from vidseg_core.models.split import SplitSegmenter
from vidseg_core.models.trainable import weights_bytes
from vidseg_core.propagation.sharing import FeatureSharing
from vidseg_core.training.flow_clips import ClipCut, FlowClip, cut_out
from vidseg_core.training.flow_loss import scores_loss
from vidseg_core.training.learner import Learner

FILE = "sharing.safetensors"
_INSIDE = "net.inner."
"""Where the whole net is in what is trained: its file has the names of the whole net's."""


class SharingLearner(Learner):
    """Cuts are (frame, key)."""

    losses = ("current", "made_key", "own_key", "levels")
    file_names = (FILE,)
    partly = True

    def __init__(self, config: TrainPropagationConfig, segmenter: Segmenter, device: str) -> None:
        super().__init__(config, segmenter, device)
        self._labelled: dict[int, list[int]] = {}
        self._student = self._build(config.segmenter_weights)
        self._split: SharingNet = self._student.net  # type: ignore[assignment]
        self.net = Settled(self._split.requires_grad_(True))

    def _build(self, weights: str | None) -> SplitSegmenter:
        config = self.config
        built = build_segmenter(config.segmenter, device=self.device, weights=weights, seed=config.seed)
        if not isinstance(built, SplitSegmenter) or not isinstance(built.net, SharingNet):
            raise SegmenterError(
                f"feature_sharing trains a net with cached levels, and {config.segmenter!r} is none: name it "
                f"sharing:1/{config.segmenter} or sharing:2/{config.segmenter}"
            )
        return built

    def weight(self, loss: str) -> float:
        return getattr(self.config.sharing, loss)

    # --- a step ---------------------------------------------------------------------------------------------

    def draw(self, clips: Sequence[FlowClip], random: Generator) -> ClipCut:
        clip = clips[int(random.integers(len(clips)))]
        if id(clip) not in self._labelled:
            self._labelled[id(clip)] = labelled_frames(clip)
        numbers = draw_numbers(self._labelled[id(clip)], random, self.recipe, self.config.sharing.distance)
        return cut_out(clip, numbers, random, height=self.recipe.height, width=self.recipe.width)

    def judge(self, cuts: Sequence[ClipCut]) -> Mapping[str, torch.Tensor]:
        now, key = (self.pictures([cut.frames_Thw3[place] for cut in cuts]) for place in (0, 1))
        labels_Bhw = self._labels(self.tensor([cut.labels_Thw[0] for cut in cuts]).long(), now)
        student = self._student
        low = student.low(now)
        of_key, of_now = student.high(student.low(key)), student.high(low)
        alphas = [alpha(cut.numbers[0] - cut.numbers[1], self.config.sharing.alpha) for cut in cuts]
        alpha_B = torch.tensor(alphas, device=self.device)
        shared = scores_loss(student.head(student.fuse(low, of_key)), labels_Bhw)
        return {
            "current": alpha_B * shared,
            "made_key": (1.0 - alpha_B) * scores_loss(student.head(of_key), self._made(key)),
            "own_key": (1.0 - alpha_B) * scores_loss(student.head(of_now), labels_Bhw),
            "levels": distance_of(self._cached(of_now), self._cached(of_key), self.config.sharing.norm),
        }

    @torch.no_grad()
    def _made(self, frames_B3hw: torch.Tensor) -> torch.Tensor:
        """Labels that N makes, as it was."""
        return self.segmenter.head(self.segmenter.features(frames_B3hw)).argmax(1)

    def _labels(self, labels_Bhw: torch.Tensor, frames_B3hw: torch.Tensor) -> torch.Tensor:
        """Those of the clip, or N's where it has none."""
        bare_B = (labels_Bhw == IGNORE).all(2).all(1)
        if not bool(bare_B.any()):
            return labels_Bhw
        return torch.where(bare_B[:, None, None], self._made(frames_B3hw), labels_Bhw)

    def _cached(self, feats: Any) -> tuple[torch.Tensor, ...]:
        return tuple(feats)[self._split.low_count : self._split.maps]

    # --- what becomes of it ---------------------------------------------------------------------------------

    def files(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, bytes]:
        state = {name.removeprefix(_INSIDE): value for name, value in weights.items()}
        facts = {SPLIT: str(self._split.cached)}
        return {FILE: weights_bytes(state, self.segmenter.class_names, **facts)}

    def read(self, folder: Path) -> tuple[Segmenter, FeatureSharing]:
        return self._build(str(folder / FILE)), FeatureSharing()

    def use(self, folder: Path) -> str:
        return (
            f"--segmenter {self.config.segmenter} --weights {folder / FILE} "
            "--propagation.name feature_sharing --propagation.level features"
        )


class Settled(nn.Module):
    """A net whose running statistics stay as they are while its weights learn."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def train(self, mode: bool = True) -> Settled:
        return super().train(False)


def labelled_frames(clip: FlowClip) -> list[int]:
    """The frames that may be the current one: those that have a label, or all of a clip without; never the
    first, before which there is no key."""
    numbers = range(1, len(clip.frames_THW3))
    if clip.labels_THW is None:
        return list(numbers)
    known = [number for number in numbers if bool((clip.labels_THW[number] != IGNORE).any())]
    return known or list(numbers)


def draw_numbers(
    currents: Sequence[int], random: Generator, recipe: PropagationRecipe, distance: int = 0
) -> tuple[int, int]:
    """(frame, key): the key `distance` frames before the frame (0: any, up to `max_gap`), or as many as there
    are."""
    current = currents[int(random.integers(len(currents)))]
    furthest = min(distance or recipe.max_gap, current)
    return current, current - (furthest if distance else int(random.integers(1, furthest + 1)))


def alpha(distance: int, constant: float = 0.0) -> float:
    """How much the frame counts against its key: less the farther it is, unless a `constant` is given."""
    return constant or 1.0 / (distance + 1)


def distance_of(levels: Sequence[torch.Tensor], others: Sequence[torch.Tensor], norm: str) -> torch.Tensor:
    """(B,): mean absolute (l1) or squared (l2) difference over all numbers of all levels."""
    differences_BN = torch.cat(
        [(level - other).float().flatten(1) for level, other in zip(levels, others, strict=True)], dim=1
    )
    return (differences_BN.abs() if norm == "l1" else differences_BN.square()).mean(dim=1)
