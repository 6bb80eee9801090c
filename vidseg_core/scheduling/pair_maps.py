"""Maps of a pair (key, frame): the deviation as the papers' own nets are shown it (DVSNet sections 3.4
and 4.4, Table 2; DVRL section 4.2).

| set           | channels x rows x columns (flownet2_s) | what                                        |
|---------------|----------------------------------------|---------------------------------------------|
| flownet_conv4 | 192 x 16 x 16                          | the flow net's maps after its fourth layer, |
| flownet_conv5 | 192 x 8 x 8                            | its fifth,                                  |
| flownet_conv6 | 384 x 4 x 4                            | its sixth                                   |
| key_and_flow  | 5 x 32 x 32 (3 with gray pictures)     | the key picture, and the flow to it         |

Invariants: a net reads one set and nothing else; a map depends on the two pictures alone, has the same shape
for every picture, and is the same float16 numbers in a table and in the engine.

Legend: h, w flow size; C channels, g rows and columns of a map; 2 = (u, v).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from vidseg_core.config.catalogue import KEY_AND_FLOW, MAP_LAYERS

MAPS_DIGEST = "maps_sha256"
"""In fingerprints: the flow net that made the maps."""
PICTURE_GRID = 32
"""g of `key_and_flow`."""


def key_and_flow(key_view: np.ndarray, flow_hw2: np.ndarray) -> np.ndarray:
    """float16 [C, g, g]: the key's colours 0..1, then the flow in tenths of the longest side."""
    size = (PICTURE_GRID, PICTURE_GRID)
    colours_hwC = key_view.reshape(*key_view.shape[:2], -1).astype(np.float32) / np.float32(255)
    share_hw2 = flow_hw2 * np.float32(10.0 / max(flow_hw2.shape[:2]))
    parts = [*np.moveaxis(colours_hwC, -1, 0), share_hw2[..., 0], share_hw2[..., 1]]
    pooled = [cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_AREA) for part in parts]
    return np.stack(pooled).astype(np.float16)


def map_shape(name: str, estimator: Any) -> tuple[int, int, int]:
    """(C, g, g) of a set, with this flow; ValueError if the flow has no such maps."""
    if name == KEY_AND_FLOW:
        return 2 + int(estimator.channels), PICTURE_GRID, PICTURE_GRID
    check_maps((name,), estimator)
    from vidseg_core.propagation.net_flow import MAP_GRIDS

    layer = MAP_LAYERS[name]
    return int(estimator.map_channels[layer]), MAP_GRIDS[layer], MAP_GRIDS[layer]


def layers_of(names: Sequence[str]) -> tuple[str, ...]:
    """The layers of the flow net that these sets are made of."""
    return tuple(MAP_LAYERS[name] for name in names if name in MAP_LAYERS)


def reads_maps(scheduler: Any, estimator: Any) -> None:
    """ValueError for a scheduler that reads maps which this flow does not have, or of another net."""
    names = getattr(scheduler, "map_sets", ())
    check_maps(names, estimator, getattr(scheduler, "maps_digest", None))


def check_maps(names: Sequence[str], estimator: Any, digest: str | None = None) -> None:
    """ValueError unless the flow has the layers of these sets, and is the net that they were learned from."""
    wanted = [name for name in names if name in MAP_LAYERS]
    if not wanted:
        return
    if not getattr(estimator, "map_channels", None):
        raise ValueError(
            f"{wanted[0]} is read from the flow net: take --propagation.flow flownet2_s or flownet_s with "
            "its --propagation.flow_weights"
        )
    if digest is not None and digest != estimator.digest:
        raise ValueError(f"{wanted[0]} was learned from maps of another flow net than --propagation.flow")
