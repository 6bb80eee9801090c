"""The part `oracle`: the best keys of each region by dynamic programming under one budget of pixels.

Labels as N, DIS from two sides, frames of 256 pixels, a key every third frame at most; beside the best keys
of whole frames and even ones. What is best is asked in the clip's mean IoU to first order
(`counted.weights_of`), and what is reported is the mean IoU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.regions.common import SHARES, Row, Schedules, around, at_share
from benchmarks.regions.counted import STRIDE, Cut, cut_of, tables_of, weights_of
from benchmarks.two_sided import Clip
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.episodes.oracle import divide, two_sided_curve
from vidseg_core.episodes.table import EpisodeTable

GRIDS = (("1x1", 0), ("2x2", 8), ("3x3", 8), ("2x2", 0), ("3x3", 0), ("4x4", 0))
"""Grids and overlaps of frames of 256 pixels: 8 there is 16 of 512."""


def oracle(clip: Clip, kept: Path | None = None) -> Iterator[Row]:
    for grid, overlap in GRIDS:
        cut = cut_of(clip, RegionsConfig(grid=grid, overlap=overlap), kept)
        tables = list(tables_of(cut, weights_of(clip)))
        for share in SHARES:
            row: Row = {"clip": clip.name, "grid": grid, "overlap": overlap, "share": share}
            if grid == "1x1":
                points = around(cut, even(cut, share), share)
                yield row | {"keys": "even", "miou": at_share(points, share)}
            points = around(cut, best(cut, tables, share), share)
            yield row | {"keys": "best", "miou": at_share(points, share), "points": points}


def even(cut: Cut, share: float) -> Schedules:
    """Equal distances, as many keys as the share allows and one more, all regions together."""
    keys = share * cut.frames * cut.frame_pixels / sum(part.pixels for part in cut.parts)
    most = (cut.frames - 1) // STRIDE
    found = []
    for count in sorted({max(1, math.floor(keys)), max(1, math.ceil(keys))}):
        places = np.round(np.arange(count) * cut.frames / count / STRIDE).astype(int)
        found.append([np.unique(np.minimum(places, most)) * STRIDE for _ in cut.parts])
    return found


def best(
    cut: Cut, tables: Sequence[EpisodeTable], share: float, worth: Sequence[float] | None = None
) -> Schedules:
    """By these tables, within the share and with one key more. `worth`: what a region's total counts."""
    curves = [two_sided_curve(table, most_keys=-(-cut.frames // STRIDE)) for table in tables]
    costs = [part.pixels for part in cut.parts]
    budget = share * cut.frame_pixels * cut.frames
    least = sum(cost * curve.least for cost, curve in zip(costs, curves, strict=True))
    found = []
    for most in (budget, budget + max(costs)):
        keys = divide(curves, max(most, least), costs=costs, worth=worth).keys
        found.append([curve.schedule(m) for curve, m in zip(curves, keys, strict=True)])
    return found
