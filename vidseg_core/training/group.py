"""The workers of one training run as the loop sees them: who am I, how many are we, add up our numbers.

Invariant: sums run over one flat vector of fixed layout, so that a restarted group adds in the same order as
an undisturbed one (bucketed gradient reduction lays its buckets out anew after the first step).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class Solo:
    """One process."""

    rank = 0
    size = 1

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all workers."""
        return tensor

    def share_buffers(self, net: nn.Module) -> None:
        """Everybody takes the first worker's running statistics."""

    def average_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """The mean over all workers, in place."""

    def gather(self, thing: Any) -> list[Any]:
        """Everybody's small object, by rank."""
        return [thing]


class ProcessGroup(Solo):
    """The workers of the default `torch.distributed` group."""

    def __init__(self, device: torch.device) -> None:
        """`device`: where the group's backend wants its tensors."""
        self._device = device
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        there = tensor.to(self._device)
        torch.distributed.all_reduce(there)
        return there.to(tensor.device)

    def share_buffers(self, net: nn.Module) -> None:
        for buffer in net.buffers():
            torch.distributed.broadcast(buffer, src=0)

    def average_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        wanted = [weight for weight in weights if weight.requires_grad]
        gradients = [w.grad if w.grad is not None else torch.zeros_like(w) for w in wanted]
        flat = self.sum(torch.cat([gradient.reshape(-1) for gradient in gradients])) / self.size
        for weight, part in zip(wanted, flat.split([w.numel() for w in wanted]), strict=True):
            weight.grad = part.view_as(weight)

    def gather(self, thing: Any) -> list[Any]:
        things: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(things, thing)
        return things
