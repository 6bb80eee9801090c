"""Several nets as one teacher: the mean of what they say. A plug-in, `benchmarks.average:Average`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from vidseg_core.models.trainable import trainable_net

SPEC = "benchmarks.average:Average"
LEAST = 1e-6
"""Probability below which none is said to be less."""


class Average:
    """Nets of one kind, read from what `save` wrote; frames_B3HW to scores_BCHW."""

    stride = 1

    def __init__(self, weights: str) -> None:
        kept = torch.load(weights, weights_only=True)
        self.class_names = tuple(kept["class_names"])
        self._nets = []
        for state in kept["states"]:
            net = trainable_net(kept["spec"], class_names=self.class_names)
            net.net.load_state_dict(state)
            self._nets.append(net.eval())

    def features(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        """Logarithms of the mean of their probabilities: there are no features that are everybody's."""
        said = torch.stack([net(frames_B3HW).softmax(1) for net in self._nets])
        return said.mean(0).clamp_min(LEAST).log()

    def head(self, feats: torch.Tensor) -> torch.Tensor:
        """The same."""
        return feats


def save(
    path: Path, spec: str, class_names: Sequence[str], states: Sequence[Mapping[str, torch.Tensor]]
) -> None:
    """What `Average` reads."""
    kept = {"spec": spec, "class_names": list(class_names), "states": [dict(state) for state in states]}
    torch.save(kept, path)
