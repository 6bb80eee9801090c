"""What N takes on a crop of a frame, measured: each call of a net costs something besides its pixels.

Model: seconds of a call filled up as the run fills it, the best of a few; relative to the whole frame. So on
every machine the same net has about the same costs, and they are rounded to where luck begins.

Legend: H, W size of a picture.
"""

from __future__ import annotations

import numpy as np

from vidseg_core.config.regions import Crop, RegionsConfig
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.stats import clock_of

CALLS = 3
DIGITS = 2


def net_seconds(net: ChunkedNet, size: tuple[int, int], batch: int, device: str) -> float:
    """Seconds of N on a picture of this size (H, W), in calls of `batch`."""
    rng, clock = np.random.default_rng(0), clock_of(device)
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(batch)]
    net.run(pictures)  # warm
    found = []
    for _ in range(CALLS):
        started = clock()
        net.run(pictures)
        found.append(clock() - started)
    return min(found) / batch


def crop_costs(
    net: ChunkedNet, size: tuple[int, int], regions: RegionsConfig, batch: int, device: str
) -> tuple[float, ...]:
    """What N takes on each crop of a frame of this size (H, W), in frames; at least the share of the pixels,
    by which budgets count."""
    whole, crops = net_seconds(net, size, batch, device), regions.crops(size)
    known = {shape: net_seconds(net, shape, batch, device) for shape in {crop.shape for crop in crops}}
    return tuple(_cost(crop, known[crop.shape] / whole if whole else 0.0, size) for crop in crops)


def _cost(crop: Crop, measured: float, size: tuple[int, int]) -> float:
    return max(round(measured, DIGITS), crop.pixels / (size[0] * size[1]))
