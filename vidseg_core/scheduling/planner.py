"""`planner`: for a job that may look ahead: the keys of a window that gain more than they cost.

What each frame would lose under each key is predicted from small pictures and the last key's mask
(`lookahead_features`, `models.planner`), and dynamic programming picks the keys (`lookahead_values`). A key
must add more than the price in total quality: one price for a whole corpus puts its keys where they gain
most.
"""

from __future__ import annotations

import numpy as np

from vidseg_core.config.catalogue import POINT_INTERVAL
from vidseg_core.models.planner import PlannerFacts, PlannerModel, inputs_of, read_planner
from vidseg_core.models.policy_trunk import PolicyError
from vidseg_core.scheduling.lookahead_features import LOOKAHEAD_FEATURES, Pairs, lookahead_features
from vidseg_core.scheduling.lookahead_values import (
    best_keys,
    best_keys_ahead,
    filled,
    one_sided_value,
    two_sided_value,
)
from vidseg_core.scheduling.lookahead_window import LookaheadWindow
from vidseg_core.scheduling.protocol import checked_threshold


class Planner:
    """`policy`: a file of train-planner. `threshold`: the price of a key, mIoU times frames.

    ValueError for a file that is no such model, or that reads features of another version.
    """

    def __init__(self, policy: str, threshold: float | None = None) -> None:
        model, facts = read_planner(policy)
        if facts.feature_names != LOOKAHEAD_FEATURES:
            raise PolicyError(f"{policy} reads other features than are computed here; train it again")
        price = None if threshold is None else checked_threshold(threshold)
        self._core = PlannerCore(model, facts)
        self.facts, self.price = facts, price
        self.window, self.stride = facts.window, facts.stride

    def check_sides(self, two_sided: bool) -> None:
        """`PolicyError` if the file has no price for this propagation and none was given."""
        if self.price is None:
            self.facts.price_at(POINT_INTERVAL, two_sided)

    def plan(self, window: LookaheadWindow) -> list[int]:
        price = self.price
        if price is None:
            price = self.facts.price_at(POINT_INTERVAL, window.two_sided)
        return self._core.plan(window, price)


class PlannerCore:
    """A model at work, at any price. `pairs`: what computes flow and features of a pair."""

    def __init__(self, model: PlannerModel, facts: PlannerFacts, pairs: Pairs | None = None) -> None:
        self.model, self.facts = model, facts
        self._pairs = pairs or Pairs()

    def plan(self, window: LookaheadWindow, price: float) -> list[int]:
        """Frames of the window that are to be keys, the first one not counted."""
        return self.pick(self.worth(window), window, price)

    def worth(self, window: LookaheadWindow) -> np.ndarray:
        """float64 [J, E + 1]: the expected total quality of every interval of the window; no price in it."""
        stride = self.facts.stride
        reach = max(1, min(self.facts.longest, window.max_interval) // stride)
        grays = [window.grays[place] for place in self._places(window)]
        features_JEP = lookahead_features(grays, [window.labels_hw], stride, reach, self._pairs)
        loss_JE = filled(self.model.loss(inputs_of(features_JEP)))
        if window.two_sided:
            return two_sided_value(loss_JE, window.frames, stride, self.model.two_4)
        return one_sided_value(loss_JE, window.frames, stride)

    def pick(self, value_JE: np.ndarray, window: LookaheadWindow, price: float) -> list[int]:
        """The keys that gain more than the price, from what `worth` said."""
        places = self._places(window)
        begins_J = np.append(places, window.frames)
        choose = best_keys if window.ends else best_keys_ahead
        keys = choose(value_JE, price, window.sound_T[places], begins_J, window.max_interval)
        return [places[key] for key in keys]

    def _places(self, window: LookaheadWindow) -> list[int]:
        return list(range(0, window.frames, self.facts.stride))
