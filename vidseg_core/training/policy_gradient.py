"""One step of REINFORCE on a rollout (Williams 1992, as DVRL section 3.2 uses it).

    maximise  L = J + lambda_1 H(pi),   grad J = 1 / (B K) sum_trials sum_t grad log pi(a_t | s_t) (R - b)

J is the mean return of K trials (section 3.2), H the entropy of the decisions (Eq. 3). What the paper leaves
open: R is the return of the whole trial or what is still to come ("to_go", without the share of rewards that
lie before a decision and cannot be its merit); b is nothing, the mean over the trials of the episode at that
step, or the mean over the other trials ("leave_one_out", which keeps the gradient unbiased). H is summed over
the decisions like J (as in the papers that DVRL takes it from) or their mean.

Invariant: `surrogate` of the shares of a batch, averaged over workers with equal shares, has the gradient of
the whole batch.

Legend: B episodes, K trials, N = B K walkers, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vidseg_core.episodes.environment import Environment
from vidseg_core.episodes.rollout import Rollout
from vidseg_core.models.policy import Policy

CHUNK, VALUES = 16_384, 2**25
"""Decisions for which gradients are held at once, and numbers that they look at."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an update saw; sums, so that workers can add up."""

    returns: float
    walkers: int
    entropy: float
    decisions: int
    keys: int
    frames: int


def advantages(rollout: Rollout, trials: int, *, credit: str, baseline: str, gamma: float) -> np.ndarray:
    """float64 [S, N]: R - b of each decision."""
    rewards_SBK = rollout.rewards_SN.reshape(rollout.rewards_SN.shape[0], -1, trials)
    steps = len(rewards_SBK)
    discount_S11 = gamma ** np.arange(1, steps + 1, dtype=np.float64)[:, None, None]
    worth_SBK = rewards_SBK * discount_S11
    if credit == "to_go":
        gained_SBK = np.cumsum(worth_SBK[::-1], axis=0)[::-1]
    else:
        gained_SBK = np.broadcast_to(worth_SBK.sum(axis=0, keepdims=True), worth_SBK.shape)
    if baseline == "none":
        return gained_SBK.reshape(steps, -1)
    mean_SB1 = gained_SBK.mean(axis=2, keepdims=True)
    unbiased = trials / (trials - 1) if baseline == "leave_one_out" else 1.0
    return ((gained_SBK - mean_SB1) * unbiased).reshape(steps, -1)


def weight_of_entropy(lambda_1: float, *, over: str, walkers: int, decisions: float) -> float:
    """What one decision's entropy counts: lambda_1 shared by the share's `walkers` ("sum": H is summed over a
    walk), or by the `decisions` that a share has on average ("mean")."""
    return lambda_1 / (max(1.0, decisions) if over == "mean" else walkers)


def add_gradients(
    policy: Policy,
    environment: Environment,
    rollout: Rollout,
    advantages_SN: np.ndarray,
    *,
    entropy_weight: float,
) -> Measured:
    """Add the gradient of -L to the policy's weights, in chunks that fit into memory.

    `entropy_weight`: of each decision's entropy (nats), as `weight_of_entropy` has it.
    """
    decided = np.nonzero(rollout.decided_SN)
    walkers, decisions = rollout.decided_SN.shape[1], len(decided[0])
    device = policy.last.weight.device
    total_entropy = 0.0
    chunk = max(1, min(CHUNK, VALUES // environment.tables.values))
    for start in range(0, decisions, chunk):
        at = tuple(index[start : start + chunk] for index in decided)
        deviation_WF, kar_W, lkd_W, action_W, merit_W = (
            torch.from_numpy(part).to(device)
            for part in (
                environment.deviation(rollout.cells_SN[at]),
                rollout.kar_SN[at],
                rollout.lkd_SN[at],
                rollout.keys_SN[at].astype(np.int64),
                (advantages_SN[at] / walkers).astype(np.float32),
            )
        )
        log_W2 = torch.log_softmax(policy(deviation_WF, kar_W, lkd_W), dim=1)
        entropy = -(log_W2.exp() * log_W2).sum()
        chosen_W = log_W2.gather(1, action_W[:, None])[:, 0]
        (-(chosen_W * merit_W).sum() - entropy_weight * entropy).backward()
        total_entropy += float(entropy.detach())
    return Measured(
        returns=float(rollout.returns_N.sum()),
        walkers=walkers,
        entropy=total_entropy,
        decisions=decisions,
        keys=int(rollout.keys_SN.sum()) + walkers,
        frames=int(rollout.length_N.sum()) + walkers,
    )
