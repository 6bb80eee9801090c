"""What data sets list and read, for tests to compare."""

from __future__ import annotations

import numpy as np

from vidseg_core.datasets.records import FrameDataset, iter_records

Places = list[tuple[str, int]]


def places(dataset: FrameDataset, split: str) -> Places:
    return [(item.video_id, item.frame_index) for item in dataset.items(split)]


def only(dataset: FrameDataset, split: str) -> np.ndarray:
    """The labels of a split's only frame."""
    (record,) = iter_records(dataset, split)
    assert record.labels_HW is not None and record.frame_HW3.shape[:2] == record.labels_HW.shape
    return record.labels_HW
