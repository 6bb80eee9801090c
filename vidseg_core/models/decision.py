"""DVSNet's decision network (section 3.4): a regression of the expected confidence score.

The net sees the deviation between a frame and its key, and predicts how good the propagated result is: on
tables, the quality of (k, i). A frame becomes key when the prediction falls below a threshold t (section
3.2). One convolution and three fully connected layers on conv6 maps (`dvrl` trunk), or a small perceptron on
cheap features (`light`). Whole frames here, not the paper's frame regions.

Legend: W decisions, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from vidseg_core.models.policy_trunk import build_trunk

WIDTHS = {"light": (64, 32), "dvrl": (1024, 128)}


class DecisionNet(nn.Module):
    """Expected confidence of the propagated result; raises `PolicyError` as `Policy` does."""

    def __init__(
        self,
        kind: str,
        feature_names: Sequence[str],
        *,
        fingerprint: Mapping[str, str] | None = None,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.kind, self.feature_names = kind, tuple(feature_names)
        self.fingerprint = dict(fingerprint or {})
        self.widths = tuple(widths or WIDTHS.get(kind, (1,)))
        self.trunk = build_trunk(kind, self.feature_names, self.fingerprint, self.widths)
        self.last = nn.Linear(self.trunk.width, 1)

    def forward(self, deviation_WF: torch.Tensor) -> torch.Tensor:
        """confidence_W."""
        return self.last(self.trunk(deviation_WF))[:, 0]

    @torch.inference_mode()
    def confidence(self, deviation_WF: np.ndarray) -> np.ndarray:
        """float64_W."""
        there = torch.from_numpy(deviation_WF).to(self.last.weight.device)
        return self(there).double().cpu().numpy()

    def key_rate(self, deviation_WF: np.ndarray, kar_W: np.ndarray, lkd_W: np.ndarray) -> np.ndarray:
        """1 - confidence: as large as a key is wanted, so that `> 1 - t` is DVSNet's rule. KAR and LKD are
        no input of DN."""
        return 1.0 - self.confidence(deviation_WF)
