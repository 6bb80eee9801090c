"""Rollouts: a policy decides for all walkers of a table environment, at random or by a threshold.

Invariant: the random number of a decision depends on the seed, the batch, the episode, the trial and the
step alone. However the episodes of a batch are shared out over workers, each walker meets the same fate.

Legend: B episodes, K trials, N = B K walkers, S steps, W walkers that decide, F features; cells as in
`table_set`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vidseg_core.episodes.environment import Environment, Observation

KeyRate = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(deviation_WF, kar_W, lkd_W) -> pi(a1 | s) as float_W."""
Choice = Callable[[Observation, np.ndarray, int], np.ndarray]
"""(what is seen, pi(a1 | s), step) -> keys_W bool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What happened. Rows of `[S, N]` are steps 1, 2, ... of each walker."""

    cells_SN: np.ndarray
    """int64: the pair that was looked at; 0 where nothing was decided."""
    kar_SN: np.ndarray
    lkd_SN: np.ndarray
    keys_SN: np.ndarray
    """bool: the action, forced keys included."""
    decided_SN: np.ndarray
    """bool: the policy was asked."""
    rewards_SN: np.ndarray
    """float64."""
    length_N: np.ndarray
    """int64: steps taken, p_v of DVRL section 3.2; the start frame is not one."""

    @property
    def returns_N(self) -> np.ndarray:
        """Undiscounted."""
        return self.rewards_SN.sum(axis=0)

    @property
    def decisions(self) -> int:
        return int(self.decided_SN.sum())


def roll_out(environment: Environment, key_rate: KeyRate, choose: Choice) -> Rollout:
    """Walk all walkers of a reset environment to their ends. The only loop is over time."""
    steps, walkers = environment.keys_NM.shape[1] - 1, environment.walkers
    cells_SN = np.zeros((steps, walkers), np.int64)
    kar_SN, lkd_SN = (np.zeros((steps, walkers), np.float32) for _ in range(2))
    decided_SN = np.zeros((steps, walkers), bool)
    rewards_SN = np.zeros((steps, walkers))
    length_N = np.zeros(walkers, np.int64)
    while (seen := environment.observe()) is not None:
        at, who = environment.time - 1, seen.walkers_W
        keys_W = np.zeros(0, bool)
        if len(who):
            rate_W = key_rate(environment.deviation(seen.cells_W), seen.kar_W, seen.lkd_W)
            keys_W = choose(seen, rate_W, at)
            cells_SN[at, who], kar_SN[at, who], lkd_SN[at, who] = seen.cells_W, seen.kar_W, seen.lkd_W
            decided_SN[at, who] = True
        length_N[environment.live] += 1
        rewards_SN[at] = environment.step(keys_W)
    return Rollout(
        cells_SN=cells_SN,
        kar_SN=kar_SN,
        lkd_SN=lkd_SN,
        keys_SN=environment.keys_NM[:, 1:].T.astype(bool),
        decided_SN=decided_SN,
        rewards_SN=rewards_SN,
        length_N=length_N,
    )


def sampled(uniform_SN: np.ndarray, epsilon: float) -> Choice:
    """Actions drawn from the policy, no action with more than probability epsilon (DVRL section 3.2)."""

    def choose(seen: Observation, rate_W: np.ndarray, at: int) -> np.ndarray:
        return uniform_SN[at, seen.walkers_W] < np.clip(rate_W, 1.0 - epsilon, epsilon)

    return choose


def above(threshold_N: np.ndarray) -> Choice:
    """Key where pi(a1 | s) > tau (DVRL section 3.1), each walker with its own tau."""

    def choose(seen: Observation, rate_W: np.ndarray, at: int) -> np.ndarray:
        return rate_W > threshold_N[seen.walkers_W]

    return choose


def batch_random(
    seed: int, batch: int, episodes: range, all_episodes: int, trials: int, steps: int
) -> np.ndarray:
    """uniform_SN float64 for these of the batch's episodes; the others' numbers are drawn and dropped."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 1, batch))))
    uniform_BKS = rng.random((all_episodes, trials, steps))[episodes.start : episodes.stop]
    return uniform_BKS.reshape(-1, steps).T


def start_random(seed: int, batch: int) -> np.random.Generator:
    """The numbers that decide where the episodes of a batch start."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 0, batch))))
