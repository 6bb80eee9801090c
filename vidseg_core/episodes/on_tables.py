"""The keys that a scheduler takes on tables, at many settings at once.

Model: a scheduler of the catalogue is one of three on tables.
- Its score is a feature of the pair (key, frame), `fixed`'s is their distance.
- A trained net scores pairs; the losses that `confidence_sum` adds up since the key depend on the pair alone,
  so they are one more feature.
- It looks ahead, over a segment's windows as the engine does.

Invariants: the keys are the engine's. What a window is worth depends on where it begins alone, never on the
price, so it is computed once per beginning.

Legend: R rows, L horizon (L1 = L + 1), F deviation features, P settings, T frames, W walkers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidseg_core.config.catalogue import DISTANCE, SCHEDULERS
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.episodes.operate import Operator
from vidseg_core.episodes.rollout import KeyRate
from vidseg_core.episodes.table import EpisodeError, EpisodeTable
from vidseg_core.episodes.table_set import TableSet, join_tables
from vidseg_core.episodes.walk import with_features
from vidseg_core.models.decision import DecisionNet
from vidseg_core.models.planner import read_planner
from vidseg_core.models.policy_file import read_policy
from vidseg_core.scheduling import by_name
from vidseg_core.scheduling.learned_regions import note_on_file
from vidseg_core.scheduling.lookahead_features import Pairs
from vidseg_core.scheduling.lookahead_window import (
    LookaheadWindow,
    Plan,
    class_shares,
    lookahead_keys,
    looked_at,
)
from vidseg_core.scheduling.planner import PlannerCore
from vidseg_core.scheduling.split import Gaps, Split

PAIRS = 6000
"""Kept of a clip that is looked at at several prices: those of 1,100 frames, 220 MB."""
SUMMED = "expected_loss_sum"
AT_A_TIME = 4096
"""Maps that a net is shown at once."""


def keys_on(
    table: EpisodeTable,
    name: str,
    thresholds: Sequence[float] | np.ndarray,
    *,
    max_interval: int,
    policy: str | None = None,
    two_sided: bool = True,
) -> np.ndarray:
    """bool [P, T]: the keys of the scheduler `name` at each threshold or price. `policy`: its file."""
    if not SCHEDULERS[name].looks_ahead:
        return scored_on(table, name, policy).keys(thresholds, max_interval)
    walk: LookaheadTable | SplitTable
    if SCHEDULERS[name].asks:
        walk = SplitTable(table, max_interval=max_interval)
    else:
        assert policy is not None
        model, facts = read_planner(policy)
        note_on_file(facts.fingerprint, RegionsConfig.of_record(table.fingerprint))  # refuses another grid
        core = PlannerCore(model, facts, pairs=Pairs(most=PAIRS))
        walk = LookaheadTable(core, table, two_sided=two_sided, max_interval=max_interval)
    is_key_PT = np.zeros((len(thresholds), table.frames), dtype=bool)
    for place, price in enumerate(thresholds):
        is_key_PT[place, walk.keys(price)] = True
    return is_key_PT


# --- schedulers that score --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scored:
    """A scheduler that scores pairs: how, and the tables with what it reads."""

    key_rate: KeyRate
    tables: TableSet

    def keys(self, thresholds: Sequence[float] | np.ndarray, max_interval: int) -> np.ndarray:
        """bool [P, T] on one table: where its score exceeds each threshold."""
        operator = Operator(self.tables, max_interval=max_interval)
        taken_SP = operator.walk(self.key_rate, np.asarray(thresholds, np.float64)).keys_SN
        return np.concatenate([np.ones((1, taken_SP.shape[1]), bool), taken_SP]).T

    def met(self, thresholds: np.ndarray, max_interval: int) -> np.ndarray:
        """All scores that are met on the way at these thresholds."""
        met: list[np.ndarray] = []

        def listening(deviation_WF: np.ndarray, kar_W: np.ndarray, lkd_W: np.ndarray) -> np.ndarray:
            met.append(self.key_rate(deviation_WF, kar_W, lkd_W))
            return met[-1]

        Operator(self.tables, max_interval=max_interval).walk(listening, thresholds)
        return np.concatenate(met)


def scored_on(table: EpisodeTable, name: str, policy: str | None = None) -> Scored:
    """The scheduler `name` on one clip's table."""
    if SCHEDULERS[name].trained_by and not SCHEDULERS[name].feature:
        assert policy is not None
        table = with_features(table, read_policy(policy)[1].feature_names)
    return scored(join_tables([table]), name, policy)


def scored(tables: TableSet, name: str, policy: str | None = None) -> Scored:
    """The scheduler `name` on tables that hold the features it reads; `policy`: the file of a trained one."""
    entry = SCHEDULERS[name]
    if entry.feature == DISTANCE:
        return Scored(lambda deviation_WF, kar_W, lkd_W: np.asarray(lkd_W, np.float64), tables)
    if entry.feature:
        return Scored(_column(tables, entry.feature), tables)
    assert policy is not None
    net, facts = read_policy(policy, role=entry.trained_by.removeprefix("train-"))
    note_on_file(facts.fingerprint, RegionsConfig.of_record(tables.fingerprint))  # refuses another grid
    if getattr(by_name.SCHEDULERS.find(name), "summed", False):
        assert isinstance(net, DecisionNet)
        return summed(tables, net)
    return Scored(net.key_rate, tables)


def summed(tables: TableSet, net: DecisionNet) -> Scored:
    """What `confidence_sum` scores: expected losses added up since the key, as the one feature `SUMMED`.

    float32; NaN from a pair on of which nothing is known.
    """
    rows, wide, features = tables.deviation_RL1F.shape
    if tables.maps_GL1M is None:
        confidence = net.confidence(tables.deviation_RL1F.reshape(-1, features))
    else:
        confidence = _confidence_of_maps(tables, net)
    loss_RL1 = 1.0 - confidence.reshape(rows, wide)
    loss_RL1 = np.maximum(loss_RL1, 0.0).astype(np.float32)
    loss_RL1[:, 0] = 0.0
    summed_RL1 = np.cumsum(loss_RL1, axis=1, dtype=np.float32)
    own = replace(
        tables, deviation_RL1F=summed_RL1[..., None], feature_names=(SUMMED,), maps_GL1M=None, place_R=None
    )
    return Scored(_column(own, SUMMED), own)


def _confidence_of_maps(tables: TableSet, net: DecisionNet) -> np.ndarray:
    """Of every pair of a frame that may be key, some at a time; NaN for the others."""
    known = np.isfinite(tables.deviation_RL1F).all(axis=2).ravel()
    found = np.full(known.shape, np.nan)
    for cells_W in np.array_split(np.flatnonzero(known), max(1, int(known.sum()) // AT_A_TIME)):
        found[cells_W] = net.confidence(tables.seen(cells_W))
    return found


def _column(tables: TableSet, feature: str) -> KeyRate:
    if feature not in tables.feature_names:
        raise EpisodeError(f"the tables have no {feature}; build-episodes --features scores tabulates it")
    column = tables.feature_names.index(feature)
    return lambda deviation_WF, kar_W, lkd_W: deviation_WF[:, column].astype(np.float64)


# --- schedulers that look ahead ---------------------------------------------------------------------------


class LookaheadTable:
    """A planner on one segment, at any number of prices; the table must hold pictures."""

    def __init__(
        self, core: PlannerCore, table: EpisodeTable, *, two_sided: bool, max_interval: int | None = None
    ) -> None:
        """`max_interval`: as the job's; None: what model and table allow."""
        assert table.grays_Thw is not None and table.masks_Thw is not None
        self._core, self._two_sided = core, two_sided
        self._grays, self._masks = list(table.grays_Thw), table.masks_Thw
        most = table.horizon if max_interval is None else max_interval
        self._most = min(core.facts.longest, most)
        self._worth: dict[int, np.ndarray] = {}

    def keys(self, price: float) -> np.ndarray:
        """int64, the first 0."""

        def plan(window: LookaheadWindow) -> list[int]:
            if window.first not in self._worth:
                self._worth[window.first] = self._core.worth(window)
            return self._core.pick(self._worth[window.first], window, price)

        found = lookahead_keys(
            plan,
            looked_at(self._core.facts, self._most),
            self._core.facts.stride,
            self._grays,
            lambda frame: self._masks[frame],
            two_sided=self._two_sided,
            max_interval=self._most,
        )
        return np.array(found, np.int64)


class SplitTable:
    """`split` on one segment, at any number of prices; the table must hold pictures."""

    def __init__(self, table: EpisodeTable, *, max_interval: int | None = None) -> None:
        """`max_interval`: as the job's; None: what the table allows."""
        assert table.grays_Thw is not None and table.masks_Thw is not None
        self._table, self._most = table, table.horizon if max_interval is None else max_interval
        first = class_shares(table.masks_Thw[0]) if table.class_shares_K is None else table.class_shares_K
        self._shares_K, self._gaps = first, dict[int, Gaps]()

    def keys(self, price: float) -> np.ndarray:
        """int64, the first 0."""
        table, split = self._table, Split(price)
        assert table.grays_Thw is not None and table.masks_Thw is not None
        masks_Thw = table.masks_Thw

        def plan(window: LookaheadWindow) -> Plan:
            return split.plan(window, self._gaps.setdefault(window.first, Gaps(window)))

        found = lookahead_keys(
            plan,
            looked_at(split, self._most),
            split.stride,
            list(table.grays_Thw),
            lambda frame: masks_Thw[frame],
            two_sided=True,
            max_interval=self._most,
            area=table.area,
            class_shares_K=self._shares_K,
        )
        return np.array(found, np.int64)
