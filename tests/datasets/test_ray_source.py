"""Promise: a data set read through Ray Data gives the rows that it gives by itself, in the same order.

Order is part of a recipe: a job that trains on rows in the order in which workers happen to finish cannot be
run again. And a bad file among thousands is either the end of the job or accounted for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.datasets.miniatures import columns, frame_of, labelled_video, save
from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.ray_source import (
    ROW_SCHEMA,
    FrameSource,
    RowErrors,
    ray_dataset,
    record_of,
    task_runs,
)
from vidseg_core.datasets.records import DatasetError, FrameDataset, Item, iter_records


@pytest.fixture
def spoilt(tmp_path: Path) -> FrameDataset:
    """Four images, the second of which cannot be read, the third without labels."""
    for number in range(4):
        save(tmp_path / f"images/{number}.png", frame_of("a", number))
        if number != 2:
            save(tmp_path / f"masks/{number}.png", columns([0, 1]))
    (tmp_path / "images/1.png").write_bytes(b"no image")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    return open_dataset(f"folder:{tmp_path}")


def rows_of(dataset: FrameDataset, on_error: RowErrors) -> list[dict[str, object]]:
    """What the read tasks yield, without a cluster."""
    source = FrameSource(dataset, dataset.items("all"), on_error)
    return [
        row for task in source.get_read_tasks(1) for block in task() for row in pa.table(block).to_pylist()
    ]


def test_rows_from_ray_are_the_records_in_order(local_ray: None, tmp_path: Path) -> None:
    for name in ("one", "two"):
        labelled_video(tmp_path, name, 9)
    (tmp_path / "classes.txt").write_text("\n".join(SCENE_CLASSES))
    dataset = open_dataset(f"{tmp_path}?size=24")
    rows = ray_dataset(dataset, "train").take_all()
    expected = list(iter_records(dataset, "train"))
    assert [(row["video_id"], row["frame_index"]) for row in rows] == [
        (record.video_id, record.frame_index) for record in expected
    ]
    for row, record in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(record_of(row).frame_HW3, record.frame_HW3)
        np.testing.assert_array_equal(record_of(row).labels_HW, record.labels_HW)


def test_a_bad_record_ends_the_job_by_default(local_ray: None, spoilt: FrameDataset) -> None:
    with pytest.raises(Exception, match=r"images/1\.png: cannot be read as an image"):
        ray_dataset(spoilt, "train").take_all()


def test_a_bad_record_may_be_a_row_that_says_so(spoilt: FrameDataset) -> None:
    rows = rows_of(spoilt, "row")
    assert [row["frame_index"] for row in rows] == [0, 1, 2, 3]
    assert [row["error"] is not None for row in rows] == [False, True, False, False]
    assert rows[1]["frame"] is None and rows[2]["labels"] is None
    with pytest.raises(DatasetError, match=r"images/1\.png"):
        record_of(rows[1])


def test_skipped_records_are_counted_in_the_log(
    spoilt: FrameDataset, caplog: pytest.LogCaptureFixture
) -> None:
    assert [row["frame_index"] for row in rows_of(spoilt, "skip")] == [0, 2, 3]
    assert "1 of 4 records cannot be read, the first: " in caplog.text


def test_the_columns_are_the_frozen_ones() -> None:
    assert [(field.name, str(field.type), field.nullable) for field in ROW_SCHEMA] == [
        ("video_id", "string", False),
        ("frame_index", "int64", False),
        ("height", "int32", False),
        ("width", "int32", False),
        ("frame", "binary", True),
        ("labels", "binary", True),
        ("error", "string", True),
    ]


def test_tasks_keep_to_one_video_and_gather_images() -> None:
    images = [Item(video_id="a", frame_index=i, image=f"a/{i}.png") for i in range(100)]
    videos = [Item(video_id=v, frame_index=i, image=v) for v in ("b.mp4", "c.mp4") for i in range(600)]
    runs = task_runs([*images, *videos])
    assert [len(run) for run in runs] == [64, 36, 512, 88, 512, 88]
    assert [item for run in runs for item in run] == [*images, *videos]
    assert all(len({item.image for item in run}) == 1 for run in runs[2:])


def test_a_split_without_labels_is_no_training_data(spoilt: FrameDataset, tmp_path: Path) -> None:
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    unlabelled = open_dataset(f"folder:{tmp_path}")
    with pytest.raises(DatasetError, match="no labelled frame"):
        ray_dataset(unlabelled, "train", labelled_only=True)
    with pytest.raises(DatasetError, match="no split 'vall'"):
        ray_dataset(spoilt, "vall")
