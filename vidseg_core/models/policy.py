"""The policy pi(a | s) of DVRL section 3.2: deviation through a trunk, KAR and LKD beside its last output.

    s = {D(i -> k), KAR, LKD};   logits = FC([trunk(D), KAR, LKD]);   a1 = key, a0 = not

`dvrl` is the paper's net (Conv0 96, FC 1024, 1024, 128, + 2 = 130, FC 2); `light` is for cheap features.
`paced` (not in the paper) has no hidden layer and reads log LKD: untrained it keeps a fixed interval, and
what it learns is when to be early or late,

    log pi(a1 | s) / pi(a0 | s) = a log(LKD / interval) + b KAR + c D(i -> k); at first a = PACE, b = c = 0.

Legend: W decisions, F features; logits_W2 = (a0, a1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from vidseg_core.models.policy_trunk import build_trunk

KINDS = ("light", "dvrl", "paced")
WIDTHS = {"light": (64, 32), "dvrl": (1024, 1024, 128), "paced": ()}
KAR_UNIT = 0.1
LKD_UNIT = 30.0
"""KAR and LKD enter in these units, so that both are of the order of one."""
PACE = 3.0
"""How firmly an untrained `paced` policy keeps its interval."""


class Policy(nn.Module):
    """pi(a | s). `kind`: light, dvrl or paced; raises `PolicyError` when it does not go with the features."""

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
        self.last = nn.Linear(self.trunk.width + 2, 2)

    @torch.no_grad()
    def keep_interval(self, frames: float) -> None:
        """Start from a fixed interval of so many frames, of `paced` only."""
        sides_2 = torch.tensor([-0.5, 0.5])
        self.last.weight.zero_()
        self.last.weight[:, -1] = PACE * sides_2
        self.last.bias.copy_(-PACE * math.log(frames / LKD_UNIT) * sides_2)

    def forward(self, deviation_WF: torch.Tensor, kar_W: torch.Tensor, lkd_W: torch.Tensor) -> torch.Tensor:
        """logits_W2."""
        lkd_W = lkd_W / LKD_UNIT
        if self.kind == "paced":
            lkd_W = torch.log(lkd_W)
        expert_W2 = torch.stack([kar_W / KAR_UNIT, lkd_W], dim=1)
        return self.last(torch.cat([self.trunk(deviation_WF), expert_W2], dim=1))

    @torch.inference_mode()
    def key_rate(self, deviation_WF: np.ndarray, kar_W: np.ndarray, lkd_W: np.ndarray) -> np.ndarray:
        """pi(a1 | s) float64_W of numpy states."""
        device = self.last.weight.device
        state = (torch.from_numpy(part).to(device) for part in (deviation_WF, kar_W, lkd_W))
        logits_W2 = self(*state).double()
        return torch.sigmoid(logits_W2[:, 1] - logits_W2[:, 0]).cpu().numpy()

    def expert_weights(self) -> tuple[float, float]:
        """How much KAR and LKD (`paced`: its logarithm) speak for a key, per unit: the curves of DVRL Fig. 3,
        bottom row."""
        kar, lkd = (self.last.weight[1] - self.last.weight[0])[-2:].tolist()
        return kar, lkd
