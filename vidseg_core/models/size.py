"""How large a net is: its parameters, and the arithmetic of one call.

A multiplication and the addition after it count as two operations (torch's counter; papers that say "FLOPs"
often mean pairs of them, half as many). Only what torch itself computes is seen: a net of another library has
no numbers here.

Shape suffixes: 3 = RGB, H W rows and columns.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidseg_core.models.protocol import Segmenter


def parameters_of(segmenter: Segmenter) -> int | None:
    """Numbers that training sets; None where the net is not torch's."""
    held = getattr(segmenter, "inner", segmenter)
    net = held if isinstance(held, nn.Module) else getattr(held, "net", None)
    return sum(weight.numel() for weight in net.parameters()) if isinstance(net, nn.Module) else None


def gflop_of(segmenter: Segmenter, height: int, width: int, device: str = "cpu") -> float | None:
    """10^9 operations of `head(features(frame))`, by running it once; None where torch counts none."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        segmenter.head(segmenter.features(torch.zeros(1, 3, height, width, device=device)))
    return counter.get_total_flops() / 1e9 or None
