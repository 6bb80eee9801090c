"""The environment behind gymnasium's interface, one walker at a time, for other people's algorithms.

Actions: 0 = propagate, 1 = key. An episode is terminated when the key budget is exceeded, and truncated at
its last frame. A forced key (see `environment`) is taken whatever the action; `info["forced"]` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np

from vidseg_core.episodes.environment import Environment, EpisodeRules, Observation
from vidseg_core.episodes.table import EpisodeTable
from vidseg_core.episodes.table_set import join_tables

Seen = dict[str, Any]


class KeyFrameEnv(gymnasium.Env[Seen, np.int64]):
    """Observation: `deviation` float32 [F], `kar` and `lkd` float32 [1]. Raises `EpisodeError` as
    `join_tables` and `EpisodeRules.check` do."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, tables: Sequence[EpisodeTable], rules: EpisodeRules | None = None) -> None:
        self._environment = Environment(join_tables(tables), rules or EpisodeRules())
        features = self._environment.tables.values
        box = gymnasium.spaces.Box
        self.observation_space = gymnasium.spaces.Dict(
            {
                "deviation": box(-np.inf, np.inf, (features,), np.float32),
                "kar": box(0.0, 1.0, (1,), np.float32),
                "lkd": box(0.0, float(self._environment.max_interval), (1,), np.float32),
            }
        )
        self.action_space = gymnasium.spaces.Discrete(2)
        self._now: Observation | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, Any]]:
        """A new episode; `info` names its clip and start frame."""
        super().reset(seed=seed)
        environment = self._environment
        starts_12 = environment.draw_starts(self.np_random, 1)
        environment.reset(starts_12, 1)
        self._now = environment.observe()
        table, start = starts_12[0].tolist()
        info = {"clip": environment.tables.clips[table], "start": start, "forced": self._forced()}
        return self._seen(), info

    def step(self, action: np.int64) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """One frame further. RuntimeError when the episode has ended."""
        if self._now is None:
            raise RuntimeError("the episode has ended; call reset()")
        environment = self._environment
        deciders = len(self._now.walkers_W)
        reward = float(environment.step(np.full(deciders, bool(action)))[0])
        self._now = environment.observe()
        at_end = environment.time > environment.steps_N[0]
        ended = self._now is None
        return self._seen(), reward, ended and not at_end, ended and bool(at_end), {"forced": self._forced()}

    def _forced(self) -> bool:
        return self._now is not None and self._environment.forces

    def _seen(self) -> Seen:
        """What the next decision sees; zeros when there is none."""
        environment, now = self._environment, self._now
        if now is None or not len(now.walkers_W):
            features = environment.tables.values
            return {"deviation": np.zeros(features, np.float32), "kar": _one(0.0), "lkd": _one(0.0)}
        return {
            "deviation": np.array(environment.deviation(now.cells_W)[0], np.float32),
            "kar": now.kar_W[:1].astype(np.float32),
            "lkd": now.lkd_W[:1].astype(np.float32),
        }


def _one(value: float) -> np.ndarray:
    return np.array([value], np.float32)
