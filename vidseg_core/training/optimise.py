"""The optimiser, its schedule, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from vidseg_core.config.recipes import TrainRecipe

MOMENTUM = 0.9


def build_optimiser(net: nn.Module, recipe: TrainRecipe) -> torch.optim.Optimizer:
    """SGD or AdamW over the weights that want a gradient; biases and norms (one dimension) do not decay."""
    wanted = [weight for weight in net.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in wanted if weight.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [weight for weight in wanted if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr=recipe.lr)


def learning_rate(recipe: TrainRecipe, step: int) -> float:
    """Linear warm-up times the poly schedule (ETC IV-A)."""
    warm = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
    return recipe.lr * warm * (1.0 - step / recipe.steps) ** recipe.poly


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """For every group of weights."""
    for group in optimiser.param_groups:
        group["lr"] = rate


class Average:
    """Exponential moving average of a net's weights and running statistics; short at first, then `decay`."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {key: value.detach().clone() for key, value in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take in the weights after `step`."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1.0 - decay)
            else:
                self.state[key].copy_(value)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averages."""
        return dict(self.state)

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from saved averages."""
        for key, value in state.items():
            self.state[key].copy_(value)
