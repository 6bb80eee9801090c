"""The policy pi(a | s) of DVRL section 3.2: deviation through a trunk, KAR and LKD beside its last output.

    s = {D(i -> k), KAR, LKD};   logits = FC([trunk(D), KAR, LKD]);   a1 = key, a0 = not

`dvrl` is the paper's net (Conv0 96, FC 1024, 1024, 128, + 2 = 130, FC 2); `light` is for cheap features.
`paced` (not in the paper) has no hidden layer and reads log LKD: untrained it keeps a fixed interval, and
what it learns is when to be early or late,

    log pi(a1 | s) / pi(a0 | s) = a log(LKD / interval) + b KAR + c D(i -> k); at first a = PACE, b = c = 0.

With a decision net (`models.decision`), frozen, inside, the features that it reads reach the policy as one
number, the logarithm of what the frame is expected to lose. (Not in the paper either.)

Legend: W decisions, F features; logits_W2 = (a0, a1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.policy_trunk import PolicyError, build_trunk

KINDS = ("light", "dvrl", "paced")
WIDTHS = {"light": (64, 32), "dvrl": (1024, 1024, 128), "paced": ()}
KAR_UNIT = 0.1
LKD_UNIT = 30.0
"""KAR and LKD enter in these units, so that both are of the order of one."""
PACE = 3.0
"""How firmly an untrained `paced` policy keeps its interval."""
EXPECTED_LOSS = "log_expected_loss"
"""What the trunk sees of a decision net."""
LEAST_LOSS = 1e-3
"""Expected losses below are taken for it; a net may expect a little less than none."""


class Policy(nn.Module):
    """pi(a | s). `kind`: light, dvrl or paced; raises `PolicyError` when it does not go with the features."""

    def __init__(
        self,
        kind: str,
        feature_names: Sequence[str],
        *,
        fingerprint: Mapping[str, str] | None = None,
        widths: Sequence[int] | None = None,
        decision: DecisionNet | None = None,
    ) -> None:
        super().__init__()
        self.kind, self.feature_names = kind, tuple(feature_names)
        self.fingerprint = dict(fingerprint or {})
        self.widths = tuple(widths or WIDTHS.get(kind, (1,)))
        self.decision = None if decision is None else decision.eval().requires_grad_(False)
        seen, self._own, self._for_decision = self.feature_names, list[int](), list[int]()
        if decision is not None:
            self._for_decision = [self._place(name) for name in decision.feature_names]
            self._own = [n for n in range(len(seen)) if n not in self._for_decision]
            seen = (*(seen[n] for n in self._own), EXPECTED_LOSS)
        self.trunk = build_trunk(kind, seen, self.fingerprint, self.widths)
        self.last = nn.Linear(self.trunk.width + 2, 2)

    def _place(self, name: str) -> int:
        if name not in self.feature_names:
            raise PolicyError(f"the decision net reads the feature {name!r}, which is not among those given")
        return self.feature_names.index(name)

    def _seen(self, deviation_WF: torch.Tensor) -> torch.Tensor:
        """What the trunk reads, from all features."""
        if self.decision is None:
            return deviation_WF
        with torch.no_grad():
            loss_W1 = 1.0 - self.decision(deviation_WF[:, self._for_decision])[:, None]
        return torch.cat([deviation_WF[:, self._own], torch.log(loss_W1.clamp_min(LEAST_LOSS))], dim=1)

    def set_scaling(self, deviation_WF: torch.Tensor) -> None:
        """Scale what the trunk reads to these."""
        self.trunk.set_scaling(self._seen(deviation_WF))

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
        return self.last(torch.cat([self.trunk(self._seen(deviation_WF)), expert_W2], dim=1))

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
