"""Promise: DVSNet's Fig. 9 measures fixed intervals in the three ways that section 4.3 tells apart.

Why: the mean over all distances to a key is better than a schedule's own, and that of the last frame before a
key worse; a comparison with adaptive schedules hangs on which it is.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.dvsnet import Swept, fixed_curves, over_clips, swept
from tests.episodes.tables import random_table
from vidseg_core.episodes.table import EpisodeTable

HORIZON = 5


@pytest.fixture(scope="module")
def tables() -> list[EpisodeTable]:
    return [random_table(12, HORIZON, seed=seed, clip=f"c{seed}") for seed in range(2)]


def test_fixed_intervals_are_measured_as_dff_as_dvsnet_and_as_they_are(tables: list[EpisodeTable]) -> None:
    curves = fixed_curves(tables, HORIZON)
    for place, table in enumerate(tables):
        quality_TL1 = table.quality_TL1
        for period in range(1, HORIZON + 1):
            found = {name: curve.quality_PC[period - 1, place] for name, curve in curves.items()}
            measured = range(period - 1, table.frames)
            mean = np.mean([quality_TL1[i - d, d] for i in measured for d in range(period)])
            last = np.mean([quality_TL1[i - period + 1, period - 1] for i in measured])
            own = np.mean([quality_TL1[i - i % period, i % period] for i in range(table.frames)])
            expected = {"fixed": own, "fixed (DFF)": mean, "fixed (last)": last}
            assert found == pytest.approx(expected, abs=1e-6)
    means = {name: curve.quality_PC[1:].mean() for name, curve in curves.items()}
    assert means["fixed (last)"] < means["fixed (DFF)"]


def test_a_threshold_that_knows_the_distance_alone_is_the_fixed_interval(tables: list[EpisodeTable]) -> None:
    distance = [np.where(np.isnan(t.quality_TL1), np.nan, np.arange(HORIZON + 1.0)) for t in tables]
    curve, fixed = swept(tables, distance), fixed_curves(tables, HORIZON)["fixed"]
    for threshold, quality_C in zip(curve.threshold_P, curve.quality_PC, strict=True):
        period = min(int(threshold) + 1, HORIZON)
        assert quality_C == pytest.approx(fixed.quality_PC[period - 1])


def test_between_points_quality_is_read_by_keys_a_frame() -> None:
    curve = Swept(threshold_P=np.zeros(2), aki_P=np.array([2.0, 4.0]), quality_PC=np.array([[0.9], [0.5]]))
    assert curve.at(8 / 3) == pytest.approx([0.7])
    assert over_clips(np.array([0.2, 0.2]), np.array([1.0, 3.0])) == pytest.approx((0.2, 0.2))
