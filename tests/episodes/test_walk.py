"""Promise: a schedule's value is read off the table, frame by frame; one that the table does not know
is refused with the reason.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.episodes.tables import random_table
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.episodes.walk import even_keys, feature, fixed_keys, two_sided_total, walk


def test_each_frame_shows_what_its_last_key_propagates() -> None:
    table = random_table(9, 5)
    seen = walk(table, (0, 4, 5))
    expected = [(0, 0), (0, 1), (0, 2), (0, 3), (4, 0), (5, 0), (5, 1), (5, 2), (5, 3)]
    assert seen.quality_T.tolist() == [float(table.quality_TL1[k, d]) for k, d in expected]
    assert seen.aki == 3.0 and seen.mean == pytest.approx(seen.total / 9)


def test_two_sided_is_keys_and_gaps_and_a_one_sided_tail() -> None:
    table = random_table(9, 5)
    two = table.two_sided_TL1
    assert two is not None
    expected = table.quality_TL1[[0, 3], 0].sum() + two[0, 3] + two[3, 4] + table.quality_TL1[7, :2].sum()
    assert two_sided_total(table, (0, 3, 7)) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ((1, 4), "keys must increase from 0"),
        ((0, 4, 4), "keys must increase from 0"),
        ((0, 9), "key 9 of 9 frames"),
        ((0, 2), "the interval of key 2 has 7 frames, the table knows up to 5"),
    ],
)
def test_a_schedule_that_the_table_cannot_value_is_refused(keys: tuple[int, ...], message: str) -> None:
    with pytest.raises(EpisodeError, match=message):
        walk(random_table(9, 5), keys)


def test_fixed_and_even_keys() -> None:
    assert fixed_keys(10, 4).tolist() == [0, 4, 8]
    assert even_keys(10, 3).tolist() == [0, 3, 6]
    assert len(even_keys(7, 7)) == 7


def test_unknown_features_suggest_the_nearest() -> None:
    table = replace(random_table(), feature_names=("warp_error", "distance"))
    with pytest.raises(EpisodeError, match="did you mean 'warp_error'"):
        feature(table, "warp_eror")
    with pytest.raises(EpisodeError, match="no feature 'flow_magnitude'"):
        feature(table, "flow_magnitude")
