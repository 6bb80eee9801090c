"""DVRL's episode written from the equations, one walker at a time: slow, and meant to be read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from vidseg_core.episodes.environment import EpisodeRules
from vidseg_core.episodes.table import EpisodeTable

State = tuple[list[float], float, int]
"""D(i -> k), KAR, LKD (DVRL section 3.2)."""


@dataclass(frozen=True)
class Walked:
    """One trial."""

    keys: list[bool]
    """Of each frame walked, the start frame first."""
    rewards: list[float]
    """Of each frame after the start frame."""
    states: list[State | None]
    """What was seen before each decision; None where the key was forced."""


def walk_plainly(
    table: EpisodeTable, start: int, rules: EpisodeRules, decide: Callable[[int, State], bool]
) -> Walked:
    """`decide(step, state)` with step 1, 2, ... is the action of a1 (True) or a0."""
    stride = table.key_stride
    forced_at = (rules.max_interval or table.horizon) // stride * stride
    keys, rewards, states = [True], [], []
    key = start
    compared = min(rules.history, rules.frames, table.frames - start)
    while start + len(keys) < table.frames and len(keys) < rules.frames:
        window = keys[-rules.history :]
        if sum(window) > 1 and sum(window) / compared > rules.eta + 1e-12:
            break  # stop immediately exceeding the limitation
        frame = start + len(keys)
        lkd = frame - key
        state = (table.deviation_TL1F[key, lkd].tolist(), sum(window) / len(window), lkd)
        forced = lkd >= forced_at
        asked = not forced and lkd % stride == 0
        is_key = forced or (asked and decide(len(keys), state))
        states.append(state if asked else None)
        rewards.append(_reward(table, rules, key, frame, is_key))
        keys.append(is_key)
        key = frame if is_key else key
    return Walked(keys, rewards, states)


def _reward(table: EpisodeTable, rules: EpisodeRules, key: int, frame: int, is_key: bool) -> float:
    of_key = float(table.quality_TL1[frame, 0])
    of_other = float(table.quality_TL1[key, frame - key])
    if rules.reward == "gain":
        return _or_zero(of_key - of_other) if is_key else 0.0  # Eq. 1 and Eq. 2
    if not is_key:
        return _or_zero(of_other)
    if rules.sides == "one":
        return _or_zero(of_key) - rules.price
    assert table.two_sided_TL1 is not None
    shown_before = sum(_or_zero(float(table.quality_TL1[key, d])) for d in range(1, frame - key))
    gained = _or_zero(float(table.two_sided_TL1[key, frame - key]) - shown_before)
    return _or_zero(of_key) + gained - rules.price


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
