"""The deviation D(i -> k) of a table: feature sets by name, computed from what the engine sees.

| set              | features                                                                          |
|------------------|-----------------------------------------------------------------------------------|
| flow             | `scheduling.cheap_features`: flow, warp error, difference, where in the picture   |
| scores           | the scores of all schedulers of the catalogue that name one as their feature      |
| frame_difference | that score alone, and the distance; needs no flow                                 |
| moving           | `scheduling.moving`: how still the frame is, from the frame before; needs no flow |
| low_deviation    | that score alone, for the net that its file belongs to (LVS section 2.2)          |
| flownet_conv6    | conv6 of FlowNet2-s (DVRL section 4.2, DVSNet section 3.4), averaged over space   |

Several sets are put one after the other; a name that has come already is left out.

Legend: F features; h, w flow size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg_core.config.catalogue import DISTANCE
from vidseg_core.config.errors import nearest
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.scheduling.cheap_features import FEATURE_NAMES
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.feature_sets import SCORERS, FeatureReader
from vidseg_core.scheduling.moving import MOVING_NAMES

if TYPE_CHECKING:
    from vidseg_core.scheduling.low_deviation import LowDeviation

CONV6 = "flownet_conv6"
LOW = "low_deviation"


FEATURE_SETS: Mapping[str, tuple[str, ...]] = {
    "flow": FEATURE_NAMES,
    "scores": (*SCORERS, DISTANCE),
    "frame_difference": ("frame_difference", DISTANCE),
    "moving": MOVING_NAMES,
}
"""The names of what each set holds."""
FEATURE_CHOICES = (*FEATURE_SETS, LOW, CONV6)


def spelled_out(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Names of features, and of sets for all that they hold. What the tables know as a feature is one, also
    where a set has its name (moving, frame_difference)."""
    found: list[str] = []
    for name in names:
        chosen = FEATURE_SETS.get(name) if name not in known else None
        if name == CONV6:
            found += [each for each in known if each.startswith("conv6_")]
        else:
            found += [name] if chosen is None else chosen
    return tuple(dict.fromkeys(found))


class Features:
    """The chosen sets as one row of numbers per pair."""

    def __init__(
        self, sets: Sequence[str], conv6: Conv6 | None = None, low: LowDeviation | None = None
    ) -> None:
        for name in sets:
            if name not in FEATURE_CHOICES:
                hint = nearest(name, FEATURE_CHOICES)
                raise EpisodeError(f"no feature set {name!r}{hint}; known: {', '.join(FEATURE_CHOICES)}")
        if (CONV6 in sets) != (conv6 is not None):
            raise EpisodeError(f"feature set {CONV6} and its net go together")
        if (LOW in sets) != (low is not None):
            raise EpisodeError(f"feature set {LOW} and its file go together")
        names = dict.fromkeys(name for chosen in sets for name in FEATURE_SETS.get(chosen, ()))
        self._read, self.conv6, self.low = FeatureReader(tuple(names)), conv6, low
        self.names = (*names, *((LOW,) if low else ()), *(conv6.names if conv6 else ()))
        self.needs_flow = self._read.needs_flow

    @property
    def cheap(self) -> int:
        """How many come from a deviation; conv6 features come after them."""
        return len(self._read.names) + (self.low is not None)

    def values(self, deviation: Deviation) -> np.ndarray:
        """float32 [cheap]: all but conv6."""
        read = self._read(deviation)
        return read if self.low is None else np.append(read, np.float32(self.low.score(deviation)))


class Conv6:
    """conv6 of a flow net (see `propagation.net_flow`), averaged over space: C numbers per pair."""

    BATCH = 8

    def __init__(self, net: Any) -> None:
        if not getattr(net, "conv6_channels", None):
            raise EpisodeError(f"features {CONV6} need flownet2_s or flownet_s, not {net!r}")
        self._net = net
        self.names = tuple(f"conv6_{channel}" for channel in range(net.conv6_channels))
        self.digest = str(net.digest)

    def values(self, current: Sequence[np.ndarray], key_hw3: np.ndarray) -> np.ndarray:
        """float32 [n, C] of n RGB views against one key."""
        import torch

        rows = []
        for start in range(0, len(current), self.BATCH):
            chunk = list(current[start : start + self.BATCH])
            filled_BHW3 = np.stack(chunk + [chunk[0]] * (self.BATCH - len(chunk)))
            current_B3HW = torch.from_numpy(filled_BHW3).permute(0, 3, 1, 2).float() / 255
            key_B3HW = torch.from_numpy(key_hw3).permute(2, 0, 1).float().div(255).expand_as(current_B3HW)
            feats_BChw = self._net.conv6(current_B3HW, key_B3HW)
            rows.append(feats_BChw.mean(dim=(2, 3))[: len(chunk)].float().cpu().numpy())
        return np.concatenate(rows)
