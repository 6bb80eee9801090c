"""The temporal loss: what a net says of a pixel, it says of it in the next frame, too (ETC III-C, Eq. 3).

    l(I_t, I_t+k) = 1/N sum_i V_i KL(q_t,i || q'_t+k,i),    V = exp(-|I_t - I'_t+k|)

q are the classes' probabilities and ' what is warped from t + k to t along F's flow M_t->t+k. V lowers what
pixels count that cannot be followed; |.| is summed over the colours, which lie in 0..1 here, and multiplied
by `sharpness` (1: the print, which does not say in which units I is; the code of its authors divides colours
by ImageNet's deviations, some 4.4, sums them before |.|, and has squares of scores for KL). It needs no
labels. Gradients reach the net through both frames; F is frozen.

Legend: B pairs, C classes, H W size of the crop; 2 = (u, v), 3 = RGB in 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.recipes import TemporalRecipe
from vidseg_core.models.digest import digest_source
from vidseg_core.models.flow.layers import backward_warp
from vidseg_core.propagation.flow import FlowEstimator, build_flow, check_flows, takes

LEAST = 1e-6
"""Probability below which a warped one does not count less."""


def temporal_loss(
    scores_BCHW: torch.Tensor,
    others_BCHW: torch.Tensor,
    flow_B2HW: torch.Tensor,
    visible_BHW: torch.Tensor,
) -> torch.Tensor:
    """(B,), Eq. 3, from the scores at t and at t + k, the flow from t to t + k, and V."""
    log_now_BCHW = scores_BCHW.log_softmax(1)
    there_BCHW = backward_warp(others_BCHW.softmax(1), flow_B2HW).clamp_min(LEAST)
    differ_BHW = (log_now_BCHW.exp() * (log_now_BCHW - there_BCHW.log())).sum(1)
    return (visible_BHW * differ_BHW).mean(dim=(1, 2))


def visible(
    frames_B3HW: torch.Tensor, others_B3HW: torch.Tensor, flow_B2HW: torch.Tensor, sharpness: float = 1.0
) -> torch.Tensor:
    """V_BHW, above 0 to 1: 1 where the pixel of t looks as where the flow finds it in t + k."""
    warped_B3HW = backward_warp(others_B3HW, flow_B2HW)
    return torch.exp(-sharpness * (frames_B3HW - warped_B3HW).abs().sum(1))


class FrozenFlow:
    """F between the frames of a step, by any flow estimator of the house or of the user."""

    def __init__(self, recipe: TemporalRecipe, *, device: str, seed: int) -> None:
        """`ConfigError` for one that cannot be built, or has random weights."""
        self.name, weights = recipe.flow, recipe.flow_weights
        if weights is not None and not takes(self.name, "weights"):
            raise ConfigError("--temporal.flow_weights", f"flow {self.name!r} takes no weights")
        asked = {"device": device, "weights": weights, "seed": seed, "chained": False}
        options = {option: value for option, value in asked.items() if takes(self.name, option)}
        try:
            self.estimator: FlowEstimator = build_flow(self.name, **options)
        except (ValueError, TypeError) as problem:
            if isinstance(problem, ConfigError):
                raise
            raise ConfigError("--temporal.flow", str(problem)) from problem
        if getattr(self.estimator, "trained", True) is False:
            problem = (
                f"{self.name!r} has random weights: give --temporal.flow_weights, or use dis or tiny-flow"
            )
            raise ConfigError("--temporal.flow", problem)

    @property
    def digest(self) -> str:
        """Of its weights, and of the source of one of the user's; empty for one without either."""
        return str(getattr(self.estimator, "digest", "")) + digest_source(self.name)

    def __call__(self, frames_B3HW: torch.Tensor, others_B3HW: torch.Tensor) -> torch.Tensor:
        """flow_B2HW: where the pixels of the frames lie in the others; no gradient."""
        now, there = self._pictures(frames_B3HW), self._pictures(others_B3HW)
        flows = self.estimator.flow(now, there)
        check_flows(flows, now, self.name)
        flow_BHW2 = torch.from_numpy(np.stack(flows)).to(frames_B3HW.device)
        return flow_BHW2.permute(0, 3, 1, 2).contiguous()

    def try_on(self, side: int) -> None:
        """`ConfigError` for an estimator that cannot take crops of this side."""
        pair_23HW = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        try:
            self(pair_23HW[:1], pair_23HW[1:])
        except Exception as problem:
            said = next(iter(str(problem).splitlines()), "") or type(problem).__name__
            text = f"{self.name!r} does not take pictures of {side}x{side} (--augment.crop {side}): {said}"
            raise ConfigError("--temporal.flow", text) from problem

    def _pictures(self, frames_B3HW: torch.Tensor) -> Sequence[np.ndarray]:
        """As F takes them: uint8, gray or RGB."""
        bytes_B3HW = frames_B3HW.detach().mul(255.0).round().clamp(0, 255)
        if self.estimator.channels == 1:
            weights_3 = bytes_B3HW.new_tensor([0.299, 0.587, 0.114])
            gray_BHW = (bytes_B3HW * weights_3[:, None, None]).sum(1).round()
            return list(gray_BHW.to(torch.uint8).cpu().numpy())
        return list(bytes_B3HW.permute(0, 2, 3, 1).to(torch.uint8).contiguous().cpu().numpy())
