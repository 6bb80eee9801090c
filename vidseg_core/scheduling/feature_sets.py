"""Deviation features by name: how a trained net gets at run time what it was trained on.

A name belongs to the cheap features, to the score of a heuristic scheduler, or to a set of maps
(`pair_maps`), which is read alone. `conv6_<n>`, a map's mean over space, is in tables only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vidseg_core.config.catalogue import DISTANCE, MAP_SETS, SCHEDULERS
from vidseg_core.scheduling.by_name import build_scheduler
from vidseg_core.scheduling.cheap_features import FEATURE_NAMES, features_of
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.moving import MOVING_NAMES, moving_of
from vidseg_core.scheduling.protocol import Scheduler


def _scorers() -> dict[str, Scheduler]:
    """Those that need a flow first: the order of the columns in tables."""
    scored = {
        entry.feature: name
        for name, entry in SCHEDULERS.items()
        if entry.feature not in ("", DISTANCE) and not entry.trained_by
    }
    built = {feature: build_scheduler(name) for feature, name in scored.items()}
    return dict(sorted(built.items(), key=lambda each: not each[1].needs_flow))  # stable


SCORERS: Mapping[str, Scheduler] = _scorers()
"""The schedulers whose score is a feature, by its name."""
NEEDS_NO_FLOW = frozenset(
    {*(name for name, scorer in SCORERS.items() if not scorer.needs_flow), DISTANCE, *MOVING_NAMES}
)
_KNOWN = (*SCORERS, *FEATURE_NAMES, *MOVING_NAMES)


class FeatureReader:
    """Reads the features of these names, in this order, from a deviation.

    ValueError for a name that the engine cannot compute. `needs_previous`: it reads the frame before, and
    what the scheduler remembers is taken. `map_sets`: what it reads instead of numbers.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.map_sets = tuple(name for name in self.names if name in MAP_SETS)
        if self.map_sets and len(self.names) > 1:
            raise ValueError(f"{self.map_sets[0]} is read alone, not with {', '.join(self.names[:3])}")
        unknown = [name for name in self.names if name not in (*_KNOWN, *MAP_SETS)]
        if unknown:
            raise ValueError(
                f"feature {unknown[0]!r} is not computed while segmenting; there are {', '.join(_KNOWN)}"
            )
        self.needs_flow = any(name not in NEEDS_NO_FLOW for name in self.names)
        self.needs_previous = any(name in MOVING_NAMES for name in self.names)
        self._cheap = any(name in FEATURE_NAMES and name != DISTANCE for name in self.names)

    def __call__(self, deviation: Deviation) -> np.ndarray:
        """float32 [F]."""
        if self.map_sets:
            return deviation.pair_map(*self.map_sets).reshape(-1).astype(np.float32)
        known: dict[str, float] = {DISTANCE: float(deviation.lkd)}
        if self._cheap:
            known.update(zip(FEATURE_NAMES, features_of(deviation).tolist(), strict=True))
        if self.needs_previous:
            known.update(zip(MOVING_NAMES, moving_of(deviation).tolist(), strict=True))
        return np.array(
            [SCORERS[name].score(deviation) if name in SCORERS else known[name] for name in self.names],
            np.float32,
        )
