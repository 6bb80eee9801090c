"""DVRL's environment on tables: many trials of many episodes walk side by side, one frame at a time.

Model (DVRL section 3.2). An episode is at most M + 1 frames from some start frame of a clip; the first is
key. At each later frame the walker
  1. stops if the key/all ratio of its history exceeds eta ("stop immediately exceeding the limitation");
  2. sees {D(i -> k), KAR, LKD};
  3. decides, and a key at frame i with last key k earns r = U_a1(i) - U_a0(k, i), a non-key 0 (Eq. 1; on
     tables of agreement with N's own mask U_a1 = 1, and this is Eq. 2).
The first frame has no last key and earns nothing.

What the paper leaves open, and how it is settled here:
- KAR in rule 1 counts the keys of the last `history` frames against the whole history, or against the whole
  episode where that is shorter, with frames before and to come as non-keys: counted among the decisions so
  far alone, the start key would be 100 %. The start key itself never exceeds the limit;
- KAR in rule 2 is what the engine hands to a scheduler: keys / decisions among the last `history`;
- a frame `max_interval` after its key is key, as in the engine; it is no decision, but it earns its reward,
  and rule 1 counts it as any other: a clip so short that forced keys alone exceed eta ends at the first that
  does (rules under which whole episodes would are refused);
- on thinned tables only every `key_stride`-th frame may be key: episodes start there, at the others nothing
  is decided, and `max_interval` is a multiple of it.

Invariant: walkers do not influence each other, and there is no Python loop over them.

Legend: N walkers (B episodes x K trials, trial fastest), M decisions at most, R rows of the table set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vidseg_core.episodes.table import EpisodeError
from vidseg_core.episodes.table_set import TableSet

EPISODE_FRAMES = 270
"""M + 1 of DVRL section 3.2 for face videos (9 seconds); 30 for Cityscapes snippets."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRules:
    """The rules of an episode; the defaults are DVRL's (sections 3.2 and 4.2)."""

    frames: int = EPISODE_FRAMES
    """M + 1, frames of an episode at most."""
    eta: float = 0.06
    """Key/all ratio above which an episode ends (the paper shows 0.04, 0.06 and 0.14); 1: never. Of `history`
    frames, or of all where the episode has fewer."""
    history: int = 90
    """Decisions that KAR looks back on."""
    max_interval: int | None = None
    """A key is forced at this distance; None: at the horizon of the tables."""
    reward: Literal["gain", "shown"] = "gain"
    """gain: DVRL Eq. 1 and 2. shown: the quality of each frame as it is shown, so that the return is what a
    user gets and an early stop costs the frames that are left."""
    sides: Literal["one", "two"] = "one"
    """two: frames between two keys show the better side (only with `shown`)."""
    price: float = 0.0
    """What a key costs, in total quality (only with `shown`): the return is then what the quality is worth
    beyond the keys spent, at one exchange rate."""

    def check(self, tables: TableSet) -> int:
        """The forced interval in frames; `EpisodeError` for rules under which no episode can be played."""
        interval = tables.horizon if self.max_interval is None else self.max_interval
        if 1 <= interval <= tables.horizon:
            interval = max(interval // tables.key_stride, 1) * tables.key_stride
        if not 1 <= interval <= tables.horizon:
            raise EpisodeError(
                f"max_interval is {interval}, but the tables know distances from 1 to {tables.horizon} only"
            )
        window = min(self.history, self.frames)
        keys, allowed = math.ceil(window / interval), int(self.most_keys(np.array(window)))
        if keys > allowed:
            raise EpisodeError(
                f"no schedule can meet eta {self.eta:g}: of {window} frames it allows {allowed} key(s), but "
                f"a key every {interval} frames at the latest makes {keys}"
            )
        if self.sides == "two" and tables.two_sided_RL1 is None:
            raise EpisodeError("these tables hold no two-sided qualities; build them, or use sides one")
        if self.sides == "two" and self.reward != "shown":
            raise EpisodeError("reward gain (DVRL Eq. 1) compares one-sided results; two sides need shown")
        return interval

    def most_keys(self, frames: np.ndarray) -> np.ndarray:
        """int64: keys among the last `history` frames that do not exceed eta, in episodes of so many
        frames."""
        return np.maximum(1, np.floor(self.eta * np.minimum(self.history, frames) + 1e-9).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Observation:
    """What the walkers that have to decide now see; W of them."""

    walkers_W: np.ndarray
    """int64: which of the N walkers."""
    cells_W: np.ndarray
    """int64: row * (L + 1) + distance, for `deviation_RL1F.reshape(-1, F)[cells]`."""
    kar_W: np.ndarray
    """float32."""
    lkd_W: np.ndarray
    """float32, frames since the last key."""


class Environment:
    """N walkers in lock step. `reset`, then `observe` and `step` in turn until `observe` says None."""

    def __init__(self, tables: TableSet, rules: EpisodeRules) -> None:
        self.tables, self.rules = tables, rules
        self.max_interval = rules.check(tables)
        self._wide = tables.horizon + 1
        self._quality = tables.quality_RL1.reshape(-1)
        self._behind = tables.behind_RL1.reshape(-1)
        self._two = None if tables.two_sided_RL1 is None else tables.two_sided_RL1.reshape(-1)

    def draw_starts(self, rng: np.random.Generator, episodes: int) -> np.ndarray:
        """starts_B2 int64 (table, frame): uniform over the frames that leave room for a whole episode; a
        clip that is shorter than an episode is played from its first frame."""
        stride = self.tables.key_stride
        room_C = np.maximum((self.tables.frames_C - self.rules.frames) // stride + 1, 1)
        places_B = rng.integers(0, int(room_C.sum()), episodes)
        ends_C = np.cumsum(room_C)
        table_B = np.searchsorted(ends_C, places_B, side="right")
        start_B = (places_B - (ends_C - room_C)[table_B]) * stride
        return np.stack([table_B, start_B], axis=1).astype(np.int64)

    def reset(self, starts_B2: np.ndarray, trials: int) -> None:
        """Put `trials` walkers on each start, a frame that may be key; the start frames are key."""
        starts_N2 = np.repeat(starts_B2, trials, axis=0)
        table_N, start_N = starts_N2[:, 0], starts_N2[:, 1]
        self.walkers = len(starts_N2)
        self._start_N = self.tables.first_C[table_N] + start_N
        frames_N = np.minimum(self.rules.frames, self.tables.frames_C[table_N] - start_N)
        self.steps_N, self._most_keys_N = frames_N - 1, self.rules.most_keys(frames_N)
        self.keys_NM = np.zeros((self.walkers, int(self.steps_N.max(initial=0)) + 1), np.uint8)
        self.keys_NM[:, 0] = 1
        self._key_step_N = np.zeros(self.walkers, np.int64)
        self._window_N = np.ones(self.walkers, np.int64)
        self.time = 1
        self._live = np.arange(self.walkers)

    @property
    def live(self) -> np.ndarray:
        """int64: the walkers that are under way, those with a forced key too."""
        return self._live

    def observe(self) -> Observation | None:
        """What is seen before the next step by walkers that decide (maybe none); None: all have ended."""
        live, history = self._live, self.rules.history
        within = self._window_N[live] <= self._most_keys_N[live]
        self._live = live = live[(self.time <= self.steps_N[live]) & within]
        if not len(live):
            return None
        self._distance_W = self.time - self._key_step_N[live]
        self._cells_W = (self._start_N[live] + self._key_step_N[live]) * self._wide + self._distance_W
        self._forced_W = self._distance_W >= self.max_interval
        self._decides_W = ~self._forced_W & (self._distance_W % self.tables.key_stride == 0)
        decides = self._decides_W
        kar_W = self._window_N[live] / min(self.time, history)
        return Observation(
            walkers_W=live[decides],
            cells_W=self._cells_W[decides],
            kar_W=kar_W[decides].astype(np.float32),
            lkd_W=self._distance_W[decides].astype(np.float32),
        )

    @property
    def forces(self) -> bool:
        """Is the next frame key for some walker, whatever is decided?"""
        return bool(self._forced_W.any())

    def step(self, keys_W: np.ndarray) -> np.ndarray:
        """Apply the decisions (bool) of the walkers last observed; rewards_N float64 of this step."""
        live, time = self._live, self.time
        is_key = self._forced_W.copy()
        is_key[self._decides_W] = keys_W
        rewards_N = np.zeros(self.walkers)
        rewards_N[live] = self._reward(is_key)
        self.keys_NM[live, time] = is_key
        self._key_step_N[live[is_key]] = time
        gone = self.keys_NM[live, time - self.rules.history] if time >= self.rules.history else 0
        self._window_N[live] += is_key.astype(np.int64) - gone
        self.time = time + 1
        return rewards_N

    def deviation(self, cells: np.ndarray) -> np.ndarray:
        """float32 [..., F] of these cells."""
        return self.tables.seen(cells)

    def _reward(self, is_key: np.ndarray) -> np.ndarray:
        """Unknown qualities earn nothing."""
        here = self._cells_W
        key_quality = self._quality[(here // self._wide + self._distance_W) * self._wide]
        if self.rules.reward == "gain":
            return np.where(is_key, _known(key_quality - self._quality[here]), 0.0)
        shown = np.where(is_key, _known(key_quality), _known(self._quality[here]))
        if self.rules.sides == "two" and self._two is not None:
            better = _known(self._two[here] - self._behind[here])
            shown = shown + np.where(is_key, better, 0.0)
        return shown - self.rules.price * is_key


def _known(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float64), nan=0.0)
