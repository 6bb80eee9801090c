"""RAFT (Teed and Deng 2020), the small form, from torchvision; its weights come from a file of yours.

Legend: B pairs, h, w picture size (multiples of 8, at least 128); 2 = (u, v) in pixels; 3 = RGB, 0..1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidseg_core.models.torchvision_compat import import_torchvision


class Raft(nn.Module):
    """(current, key) -> flow after `updates` rounds; 12 is what torchvision's weights were trained with.

    The keys of its weights are those of torchvision's `raft_small`.
    """

    multiple = 8
    smallest = 128

    def __init__(self, updates: int = 12) -> None:
        super().__init__()
        import_torchvision()
        from torchvision.models.optical_flow import raft_small

        self.raft = raft_small(weights=None, progress=False)
        self.updates = updates

    def forward(self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor) -> torch.Tensor:
        """flow_B2hw in pixels."""
        return self.levels(current_B3hw, key_B3hw)[-1]

    def levels(self, current_B3hw: torch.Tensor, key_B3hw: torch.Tensor) -> list[torch.Tensor]:
        """The flow after each round, all at full size: what training looks at (RAFT section 3.4)."""
        return self.raft(current_B3hw * 2.0 - 1.0, key_B3hw * 2.0 - 1.0, num_flow_updates=self.updates)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The weights of the wrapped net, under its own names."""
        return self.raft.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Into the wrapped net."""
        return self.raft.load_state_dict(*args, **kwargs)
