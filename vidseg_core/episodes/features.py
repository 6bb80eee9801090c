"""The deviation D(i -> k) of a table: feature sets by name, computed from what the engine sees.

| set                | features                                                                          |
|--------------------|-----------------------------------------------------------------------------------|
| flow               | `scheduling.cheap_features`: flow, warp error, difference, where in the picture   |
| scores             | the scores of all schedulers of the catalogue that name one as their feature      |
| frame_difference   | that score alone, and the distance; needs no flow                                 |
| moving             | `scheduling.moving`: how still the frame is, from the frame before; needs no flow |
| low_deviation      | that score alone, for the net that its file belongs to (LVS section 2.2)          |
| flownet_conv6_mean | conv6 of FlowNet2-s, averaged over space; for tables only                         |
| the rest           | `scheduling.pair_maps`: whole maps, as the papers' own nets read them             |

Several sets are put one after the other; a name that has come already is left out. Maps are kept beside the
numbers, or what they are made from is (`PairMaps`).

Legend: F features; h, w flow size; C, g channels and sides of a map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vidseg_core.config.catalogue import DISTANCE, KEPT_MAPS, KEY_AND_FLOW, MAP_LAYERS, MAP_SETS
from vidseg_core.config.errors import nearest
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.propagation.chain import Link
from vidseg_core.scheduling.cheap_features import FEATURE_NAMES
from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.feature_sets import SCORERS, FeatureReader
from vidseg_core.scheduling.moving import MOVING_NAMES
from vidseg_core.scheduling.pair_maps import key_and_flow, layers_of, map_shape

if TYPE_CHECKING:
    from vidseg_core.scheduling.low_deviation import LowDeviation

LOW = "low_deviation"
CONV6_MEAN = "flownet_conv6_mean"
MAP_SHAPES = "map_shapes"
"""In fingerprints of tables: "set=C,g,g ..."."""

FEATURE_SETS: Mapping[str, tuple[str, ...]] = {
    "flow": FEATURE_NAMES,
    "scores": (*SCORERS, DISTANCE),
    "frame_difference": ("frame_difference", DISTANCE),
    "moving": MOVING_NAMES,
}
"""The names of what each set holds."""
FEATURE_CHOICES = (*FEATURE_SETS, LOW, CONV6_MEAN, *MAP_SETS)


def spelled_out(names: Sequence[str], known: Sequence[str], maps: bool = False) -> tuple[str, ...]:
    """Names of features, and of sets for all that they hold. What the tables know as a feature is one, also
    where a set has its name (moving, frame_difference). `maps`: the tables know maps; those that do not
    called the means of conv6 by the name of the maps."""
    means = [each for each in known if each.startswith("conv6_")]
    found: list[str] = []
    for name in names:
        chosen = FEATURE_SETS.get(name) if name not in known else None
        if name == CONV6_MEAN or (name == "flownet_conv6" and means and not maps):
            found += means
        else:
            found += [name] if chosen is None else chosen
    return tuple(dict.fromkeys(found))


def knows_maps(fingerprint: Mapping[str, str]) -> bool:
    """Were tables made when `flownet_conv6` was the name of maps? Before, it was that of their means."""
    return MAP_SHAPES in fingerprint or CONV6_MEAN in fingerprint.get("features", "").split(",")


class Features:
    """The chosen sets as one row of numbers per pair."""

    def __init__(
        self,
        sets: Sequence[str],
        conv6: Conv6 | None = None,
        low: LowDeviation | None = None,
        maps: PairMaps | None = None,
    ) -> None:
        for name in sets:
            if name not in FEATURE_CHOICES:
                hint = nearest(name, FEATURE_CHOICES)
                raise EpisodeError(f"no feature set {name!r}{hint}; known: {', '.join(FEATURE_CHOICES)}")
        if (CONV6_MEAN in sets) != (conv6 is not None):
            raise EpisodeError(f"feature set {CONV6_MEAN} and its net go together")
        if (LOW in sets) != (low is not None):
            raise EpisodeError(f"feature set {LOW} and its file go together")
        if tuple(name for name in MAP_SETS if name in sets) != (maps.names if maps else ()):
            raise EpisodeError("sets of maps and what makes them go together")
        names = dict.fromkeys(name for chosen in sets for name in FEATURE_SETS.get(chosen, ()))
        if not (names or conv6 or low):
            names = {DISTANCE: None}  # a table has a number for each pair, whatever maps it has
        self._read, self.conv6, self.low, self.maps = FeatureReader(tuple(names)), conv6, low, maps
        self.names = (*names, *((LOW,) if low else ()), *(conv6.names if conv6 else ()))
        self.needs_flow = self._read.needs_flow or (maps is not None and maps.needs_flow)

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
            raise EpisodeError(f"features {CONV6_MEAN} need flownet2_s or flownet_s, not {net!r}")
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


class PairMaps:
    """Maps of pairs, by set (`scheduling.pair_maps`), from the flow that also carries the masks.

    `EpisodeError` for a flow that has none.
    """

    def __init__(self, names: Sequence[str], flow: Any) -> None:
        self.names = tuple(name for name in MAP_SETS if name in names)
        self._flow, self._layers = flow, layers_of(self.names)
        try:
            self.shapes = {name: map_shape(name, flow) for name in self.names}
        except ValueError as problem:
            raise EpisodeError(str(problem)) from problem
        self.digest = str(flow.digest) if self._layers else ""
        self.needs_flow = KEY_AND_FLOW in self.names

    @property
    def kept(self) -> tuple[str, ...]:
        """The sets that a table may keep."""
        return tuple(name for name in self.names if name in KEPT_MAPS)

    def values(self, name: str, links: Sequence[Link]) -> np.ndarray:
        """float16 [n, C g g] of one set."""
        if name == KEY_AND_FLOW:
            maps = [key_and_flow(link.key, _flow_of(link)) for link in links]
        else:
            pairs = [link.current for link in links], [link.key for link in links]
            maps = [made[MAP_LAYERS[name]] for made in self._flow.maps(*pairs, (MAP_LAYERS[name],))]
        return np.stack([map_Cgg.reshape(-1) for map_Cgg in maps])


def _flow_of(link: Link) -> np.ndarray:
    assert link.flow_hw2 is not None
    return link.flow_hw2


def describe_shapes(shapes: Mapping[str, tuple[int, int, int]]) -> str:
    """For a fingerprint."""
    return " ".join(f"{name}={','.join(map(str, shape))}" for name, shape in shapes.items())


def shape_in(fingerprint: Mapping[str, str], name: str) -> str:
    """ "C,g,g" of a set of maps; `EpisodeError` for tables that know none."""
    known = dict(part.split("=", 1) for part in fingerprint.get(MAP_SHAPES, "").split())
    if name not in known:
        have = f"they have {', '.join(known)}" if known else f"build them with --features {name}"
        raise EpisodeError(f"the tables have no maps of {name}; {have}")
    return known[name]
