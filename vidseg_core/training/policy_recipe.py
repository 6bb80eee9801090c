"""How a policy learns: DVRL's numbers (section 4.2), and what the paper leaves to choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EpisodeRecipe:
    """What one episode is."""

    frames: int = 270
    """frames of an episode at most, the first key included; 30 for snippets; at least 2"""
    eta: float = 0.06
    """share of keys in the history above which an episode ends; above 0 to 1"""
    history: int = 90
    """decisions that the share of keys looks back on (policies for segment need 90)"""
    max_interval: int | None = None
    """a key is forced after so many frames; None: the horizon of the tables"""
    reward: Literal["gain", "shown"] = "gain"
    """gain: what a key improves (DVRL Eq. 1, 2); shown: the quality of every frame as it is shown"""
    sides: Literal["one", "two"] = "one"
    """two: frames between keys show the better side (with reward shown)"""
    interval: float | None = None
    """with reward shown, a key costs what it is worth when keys come evenly so many frames apart; None: keys
    are free (up to eta)"""


@dataclass(frozen=True, kw_only=True)
class ReinforceRecipe:
    """The policy gradient."""

    episodes: int = 2400
    """episodes to learn from"""
    batch: int = 8
    """episodes per step"""
    trials: int = 32
    """walks of each episode, K"""
    lr: float = 1e-3
    """learning rate of RMSProp"""
    gamma: float = 1.0
    """discount per frame, above 0 to 1"""
    epsilon: float = 0.98
    """no action is drawn with a larger probability; 0.5 to 1"""
    entropy: float = 0.14
    """weight of the entropy, lambda_1"""
    entropy_over: Literal["mean", "sum"] = "mean"
    """entropy of a decision on average, or summed over a walk like the rewards"""
    credit: Literal["return", "to_go"] = "return"
    """what a decision is credited with: the whole return, or the rewards from it on"""
    baseline: Literal["none", "mean", "leave_one_out"] = "none"
    """taken off the credit: nothing (as the paper), the mean over trials, or over the other trials"""
