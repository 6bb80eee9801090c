"""What a search space may set of a policy that is trained and then used at one threshold: options of
``vidseg train-policy`` and ``tau``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vidseg_core.config.errors import check_int
from vidseg_core.config.recipes import EpisodeRecipe, ReinforceRecipe
from vidseg_core.config.train_policy import check_episode, check_kind, check_range, check_reinforce

__all__ = ["PolicyTrial"]


@dataclass(frozen=True, kw_only=True)
class PolicyTrial:
    """One policy of a search."""

    tau: float = 0.5
    """a frame is key where the policy wants one with more than this probability; 0 to 1"""
    policy: Literal["light", "dvrl", "paced"] = "light"
    """as --policy of train-policy"""
    features: tuple[str, ...] = ()
    """as --features of train-policy"""
    seed: int = 0
    """as --seed of train-policy"""
    episode: EpisodeRecipe = field(default_factory=EpisodeRecipe)
    reinforce: ReinforceRecipe = field(default_factory=ReinforceRecipe)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        check_range("--tau", self.tau, 0.0, 1.0)
        check_kind(self.policy, self.episode)
        check_int("--seed", self.seed, 0, 2**63 - 1)
        check_episode(self.episode)
        check_reinforce(self.reinforce)
