"""The deviation D(i -> k) of a table: feature sets by name, computed from what the engine sees.

| set              | features                                                                          |
|------------------|-----------------------------------------------------------------------------------|
| flow             | `scheduling.cheap_features`: flow, warp error, difference, where in the picture   |
| scores           | the scores of flow_magnitude, warp_error and frame_difference, as they are        |
| frame_difference | that score alone, and the distance; needs no flow                                 |
| moving           | `scheduling.moving`: how still the frame is, from the frame before; needs no flow |
| flownet_conv6    | conv6 of FlowNet2-s (DVRL section 4.2, DVSNet section 3.4), averaged over space   |

Several sets are put one behind the other; a name that has come already is left out.

Legend: F features; h, w flow size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidseg_core.config.errors import nearest
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.scheduling.cheap_features import FEATURE_NAMES, features_of
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.flow_magnitude import FlowMagnitude
from vidseg_core.scheduling.frame_difference import FrameDifference
from vidseg_core.scheduling.moving import MOVING_NAMES, moving_of
from vidseg_core.scheduling.warp_error import WarpError

CONV6 = "flownet_conv6"
_SCORES = {
    "flow_magnitude": FlowMagnitude(),
    "warp_error": WarpError(),
    "frame_difference": FrameDifference(),
}


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """A function of a deviation and the names of what it gives."""

    names: tuple[str, ...]
    needs_flow: bool
    values: Callable[[Deviation], Sequence[float] | np.ndarray]


def _scores(*names: str) -> Callable[[Deviation], list[float]]:
    return lambda deviation: [
        float(deviation.lkd) if name == "distance" else _SCORES[name].score(deviation) for name in names
    ]


def _score_set(*names: str, needs_flow: bool) -> FeatureSet:
    return FeatureSet(names, needs_flow, _scores(*names))


FEATURE_SETS: dict[str, FeatureSet] = {
    "flow": FeatureSet(FEATURE_NAMES, True, features_of),
    "scores": _score_set(*_SCORES, "distance", needs_flow=True),
    "frame_difference": _score_set("frame_difference", "distance", needs_flow=False),
    "moving": FeatureSet(MOVING_NAMES, False, moving_of),
}
FEATURE_CHOICES = (*FEATURE_SETS, CONV6)


def spelled_out(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Names of features, and of sets for all that they hold. What the tables know as a feature is one, also
    where a set has its name (moving, frame_difference)."""
    found: list[str] = []
    for name in names:
        chosen = FEATURE_SETS.get(name) if name not in known else None
        if name == CONV6:
            found += [each for each in known if each.startswith("conv6_")]
        else:
            found += [name] if chosen is None else chosen.names
    return tuple(dict.fromkeys(found))


class Features:
    """The chosen sets as one row of numbers per pair."""

    def __init__(self, sets: Sequence[str], conv6: Conv6 | None = None) -> None:
        for name in sets:
            if name not in FEATURE_CHOICES:
                hint = nearest(name, FEATURE_CHOICES)
                raise EpisodeError(f"no feature set {name!r}{hint}; known: {', '.join(FEATURE_CHOICES)}")
        if (CONV6 in sets) != (conv6 is not None):
            raise EpisodeError(f"feature set {CONV6} and its net go together")
        self._sets = [FEATURE_SETS[name] for name in sets if name != CONV6]
        all_names = [name for chosen in self._sets for name in chosen.names]
        self._keep = [all_names.index(name) for name in dict.fromkeys(all_names)]
        self.conv6 = conv6
        self.names = (*(all_names[place] for place in self._keep), *(conv6.names if conv6 else ()))
        self.needs_flow = any(chosen.needs_flow for chosen in self._sets)

    @property
    def cheap(self) -> int:
        """How many come from the pictures alone; conv6 features stand behind them."""
        return len(self._keep)

    def values(self, deviation: Deviation) -> np.ndarray:
        """float32 [cheap]: all but conv6."""
        numbers = [float(value) for chosen in self._sets for value in chosen.values(deviation)]
        return np.array([numbers[place] for place in self._keep], dtype=np.float32)


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
