"""Promise: which sample stands where depends on (seed, step, slot) alone.

Why: this is what makes a resumed run see what an undisturbed one would have seen, whoever reads the samples.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.small import small_config
from vidseg_core.datasets.records import Record
from vidseg_core.training.data import open_training_data
from vidseg_core.training.samples import SampleOrder, resized


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**40))
def test_every_item_comes_once_in_each_epoch(count: int, batch: int, seed: int) -> None:
    order = SampleOrder(seed=seed, batch=batch, labelled=count)
    picked = [order.pick(*divmod(position, batch)) for position in range(3 * count)]
    for epoch in range(3):
        assert sorted(index for _, index in picked[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert not any(pseudo for pseudo, _ in picked)


@given(st.floats(0.01, 0.99), st.integers(1, 16), st.integers(1, 7), st.integers(1, 7))
def test_each_batch_holds_pseudo_labels_in_their_share(
    ratio: float, batch: int, labelled: int, pseudo: int
) -> None:
    order = SampleOrder(seed=3, batch=batch, labelled=labelled, pseudo=pseudo, pseudo_ratio=ratio)
    counts = Counter()
    for step in range(30):
        picks = [order.pick(step, slot) for slot in range(batch)]
        assert abs(sum(kind for kind, _ in picks) - ratio * batch) < 1 + 1e-6
        counts.update(picks)
    for kind, items in ((False, labelled), (True, pseudo)):
        seen = [counts[kind, index] for index in range(items)]
        assert max(seen) - min(seen) <= 1


def test_only_pseudo_labels_is_a_share_of_one() -> None:
    order = SampleOrder(seed=0, batch=4, labelled=0, pseudo=5, pseudo_ratio=1.0)
    assert all(order.pick(step, slot)[0] for step in range(5) for slot in range(4))


def test_samples_do_not_depend_on_where_reading_begins_nor_on_who_reads(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    one = open_training_data(config).training_set(config)
    other = open_training_data(config).training_set(config)
    whole = list(one.batches(0, 4))
    late = list(other.batches(2, 4))
    right = list(other.batches(0, 4, slots=(2, 3)))
    for batch, again in zip(whole[2:], late, strict=True):
        assert torch.equal(batch.frames_B3HW, again.frames_B3HW) and batch.ids == again.ids
    for batch, half in zip(whole, right, strict=True):
        assert torch.equal(batch.frames_B3HW[2:], half.frames_B3HW)
        assert torch.equal(batch.labels_BHW[2:], half.labels_BHW)


def test_the_same_frame_is_varied_anew_each_time(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    training_set = open_training_data(config).training_set(config)
    seen = [training_set.sample(step, slot) for step in range(8) for slot in range(4)]
    versions = [sample.frame_3HW for sample in seen if sample.name == seen[0].name]
    assert len(versions) > 2 and not np.array_equal(versions[0], versions[1])


@pytest.mark.parametrize(("size", "shape"), [(0, (60, 80)), (200, (60, 80)), (40, (30, 40))])
def test_frames_are_reduced_to_their_longest_side(size: int, shape: tuple[int, int]) -> None:
    record = Record(
        video_id="v",
        frame_index=0,
        frame_HW3=np.zeros((60, 80, 3), np.uint8),
        labels_HW=np.full((60, 80), 7, np.uint8),
    )
    found = resized(record, size)
    assert found.frame_HW3.shape == (*shape, 3) and found.labels_HW is not None
    assert found.labels_HW.shape == shape and (found.labels_HW == 7).all()
