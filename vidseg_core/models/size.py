"""How large a net is: its parameters, and the arithmetic of one call.

A multiplication and the addition after it count as two operations (torch's counter; papers that say "FLOPs"
often mean pairs of them, half as many). Only what torch itself computes is seen: a net of another library has
no numbers here.

Shape suffixes: 3 = RGB, H W rows and columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidseg_core.models.protocol import Segmenter
from vidseg_core.models.split import SplitNet


def parameters_of(segmenter: Segmenter) -> int | None:
    """Numbers that training sets; None where the net is not torch's. Of a net of the package those that its
    scores depend on: what is in its file and never read does not count."""
    net = net_of(segmenter)
    if net is None:
        return None
    weights = weights_read(net) if isinstance(net, SplitNet) else net.parameters()
    return sum(weight.numel() for weight in weights)


def net_of(holder: object) -> nn.Module | None:
    """The torch net of a segmenter or a flow estimator; None where it has none."""
    held = getattr(holder, "inner", holder)
    net = held if isinstance(held, nn.Module) else getattr(held, "net", None)
    return net if isinstance(net, nn.Module) else None


def weights_read(net: SplitNet) -> list[nn.Parameter]:
    """The parameters that scores depend on, found by following those of a small frame back."""
    asked = {weight: weight.requires_grad for weight in net.parameters()}
    if not asked:
        return []
    try:
        net.requires_grad_(True)
        first, side = next(iter(asked)), 2 * net.multiple
        with torch.enable_grad():
            frame_13HW = torch.zeros(1, 3, side, side, dtype=first.dtype, device=first.device)
            scores = net.decode(net.encode(frame_13HW))
    finally:
        for weight, before in asked.items():
            weight.requires_grad_(before)
    steps, seen, found = [scores.grad_fn], {scores.grad_fn}, []
    while steps:
        step: Any = steps.pop()
        if hasattr(step, "variable"):
            found.append(step.variable)
        for before, _ in step.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                steps.append(before)
    return found


def gflop_of(segmenter: Segmenter, height: int, width: int, device: str = "cpu") -> float | None:
    """10^9 operations of `head(features(frame))`, by running it once; None where torch counts none."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        segmenter.head(segmenter.features(torch.zeros(1, 3, height, width, device=device)))
    return counter.get_total_flops() / 1e9 or None
