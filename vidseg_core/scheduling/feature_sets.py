"""Deviation features by name: how a trained net gets at run time what it was trained on.

A name belongs to the cheap features, to the score of a heuristic scheduler, or to a flow net (`conv6_<n>`,
which the engine does not compute).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vidseg_core.scheduling.cheap_features import FEATURE_NAMES, features_of
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.flow_magnitude import FlowMagnitude
from vidseg_core.scheduling.frame_difference import FrameDifference
from vidseg_core.scheduling.moving import MOVING_NAMES, moving_of
from vidseg_core.scheduling.warp_error import WarpError

SCORES: dict[str, Callable[[Deviation], float]] = {
    "flow_magnitude": FlowMagnitude().score,
    "warp_error": WarpError().score,
    "frame_difference": FrameDifference().score,
}
NEEDS_NO_FLOW = frozenset({"frame_difference", "distance", *MOVING_NAMES})
_KNOWN = (*SCORES, *FEATURE_NAMES, *MOVING_NAMES)


class FeatureReader:
    """Reads the features of these names, in this order, from a deviation.

    ValueError for a name that the engine cannot compute. `needs_previous`: it reads the frame before, and
    what the scheduler remembers is taken.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        unknown = [name for name in self.names if name not in _KNOWN]
        if unknown:
            raise ValueError(
                f"feature {unknown[0]!r} is not computed while segmenting; there are {', '.join(_KNOWN)}"
            )
        self.needs_flow = any(name not in NEEDS_NO_FLOW for name in self.names)
        self.needs_previous = any(name in MOVING_NAMES for name in self.names)
        self._cheap = any(name in FEATURE_NAMES and name != "distance" for name in self.names)

    def __call__(self, deviation: Deviation) -> np.ndarray:
        """float32 [F]."""
        known: dict[str, float] = {"distance": float(deviation.lkd)}
        if self._cheap:
            known.update(zip(FEATURE_NAMES, features_of(deviation).tolist(), strict=True))
        if self.needs_previous:
            known.update(zip(MOVING_NAMES, moving_of(deviation).tolist(), strict=True))
        return np.array(
            [SCORES[name](deviation) if name in SCORES else known[name] for name in self.names], np.float32
        )
