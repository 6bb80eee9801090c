"""What `train-propagation --propagator NAME` learns: one `Learner` a name; the loop is `propagation`.

Model: a learner has nets, draws what a step reads, and judges it. All else is the same for all of them: the
order of steps, the optimiser, workers, checkpoints, curves, and how the result is scored. N is frozen unless
a learner puts its weights into `net`; then it also writes them (`files`), and what it carries belongs to
those.
Invariant: what `draw` gives depends on the clips and the random generator alone.

Legend: B cuts of a step, T frames of a cut, h, w crop size; 3 = RGB; uint8 in numpy and 0..1 in torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.random import Generator
from torch import nn

from vidseg_core.config.catalogue import PROPAGATORS
from vidseg_core.config.errors import check
from vidseg_core.config.train_propagation import TrainPropagationConfig
from vidseg_core.models.protocol import Segmenter
from vidseg_core.propagation.propagators import AnyPropagator
from vidseg_core.training.flow_clips import FlowClip
from vidseg_core.training.propagation_score import Scores, score_propagator


class Drawn(Protocol):
    """A sample of a step."""

    @property
    def ids(self) -> str:
        """What it is made of, in words."""
        ...


class Learner(ABC):
    """Built by the driver, which sees so that it can be, and by each worker."""

    losses: ClassVar[tuple[str, ...]]
    """In the order in which workers add them up. Each has its weight in the recipe, under its own name."""
    file_names: ClassVar[tuple[str, ...]]
    """What it writes."""
    partly: ClassVar[bool] = False
    """It learns from clips of which only some frames have labels; for others these clips have none."""
    net: nn.Module
    """All that is trained, on `device`."""

    def __init__(self, config: TrainPropagationConfig, segmenter: Segmenter, device: str) -> None:
        self.config, self.recipe = config, config.recipe
        self.segmenter, self.device = segmenter, torch.device(device)

    # --- a step --------------------------------------------------------------------------------------------

    @abstractmethod
    def draw(self, clips: Sequence[FlowClip], random: Generator) -> Drawn:
        """What one sample of a step is made of, e.g. frames (see `flow_clips`)."""

    @abstractmethod
    def judge(self, cuts: Sequence[Any]) -> Mapping[str, torch.Tensor]:
        """(B,) by name of the loss: what each cut costs, not weighted yet."""

    @property
    def apart(self) -> Sequence[nn.Module]:
        """Parts of `net` whose gradients are limited each by itself."""
        return [self.net]

    def weight(self, loss: str) -> float:
        """What this loss counts."""
        return getattr(self.recipe, loss)

    def check(self, clips: Sequence[FlowClip]) -> None:
        """`ConfigError` for clips that it cannot learn from."""
        if "labels" in self.losses and self.recipe.labels:
            has_labels = any(clip.labels_THW is not None for clip in clips)
            problem = f"no clip has labels of the classes of {self.segmenter.name}"
            check(has_labels, "--recipe.labels", problem)

    def decides(self) -> dict[str, str]:
        """What else decides the weights than options, clips and N, by name."""
        return {}

    # --- what becomes of it --------------------------------------------------------------------------------

    @abstractmethod
    def files(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, bytes]:
        """What is written, by name of the file: these weights of `net`, which are on the CPU."""

    @abstractmethod
    def read(self, folder: Path) -> tuple[Segmenter, AnyPropagator]:
        """N and the propagator that runs would build from those files."""

    @abstractmethod
    def use(self, folder: Path) -> str:
        """The options of `segment` that use the files."""

    def score(self, folder: Path, clips: Sequence[FlowClip]) -> Scores:
        """How well it does on clips left out, by gap."""
        segmenter, propagator = self.read(folder)
        return score_propagator(
            propagator, segmenter, clips, self.config.gap_numbers, device=str(self.device)
        )

    # --- for learners --------------------------------------------------------------------------------------

    def tensor(self, arrays: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.device)

    def pictures(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """(B, 3, h, w) of uint8 (h, w, 3) each, as N is fed."""
        return self.tensor(frames).permute(0, 3, 1, 2).float().div(255.0).contiguous()

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(weight.numel() for weight in self.net.parameters() if weight.requires_grad)


def build_learner(config: TrainPropagationConfig, segmenter: Segmenter, device: str) -> Learner:
    """The learner of `--propagator`; `SegmenterError` for a net that it does not fit."""
    module, _, name = PROPAGATORS[config.propagator].learner.partition(":")
    cls: Any = getattr(import_module(module), name)
    return cls(config, segmenter, device)
