"""Promise: what `benchmarks.regions` adds up for a schedule of a region is what its frames, filled from two
sides as the engine fills them, show in the region's own part; and tables made of it say so, too.

Why: all figures of docs/regions.md on schedules come from these sums.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.regions import counted
from benchmarks.regions.common import at_share, confusion_of, sized
from benchmarks.regions.counted import Cut, cut_of, frame_iou, share_weights, table_of, weights_of
from benchmarks.regions.learned import where_it_wins
from benchmarks.two_sided import VOID, Clip
from vidseg_core.calibration.evidence import schedule_masks
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.open import open_dataset
from vidseg_core.datasets.records import Record
from vidseg_core.datasets.regions import cut_out
from vidseg_core.episodes.walk import two_sided_total

KEYS = np.array([0, 3, 12])
REGIONS = RegionsConfig(grid="2x1", overlap=8)


@pytest.fixture(scope="module")
def cut() -> Cut:
    scenes = open_dataset("scenes:videos=1,frames=16,height=48,width=64,seed=7")
    records = [scenes.read(item) for item in scenes.items("all")]
    labels = [record.labels_HW.copy() for record in records if record.labels_HW is not None]
    labels[7][:9, :9] = VOID
    frames = [record.frame_HW3 for record in records]
    clip = Clip(name="drawn", classes=len(scenes.class_names), frames=frames, labels=labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counted, "HORIZON", 12)
        return cut_of(sized(clip, 64, None), REGIONS)


def masks_of(cut: Cut, number: int) -> list[np.ndarray]:
    """The region's frames under `KEYS`, by the tables' own ways."""
    clip, builder = cut.clip, counted.builder_of(cut.clip)
    records = (
        Record(video_id="drawn", frame_index=t, frame_HW3=frame_HW3, labels_HW=labels_HW)
        for t, (frame_HW3, labels_HW) in enumerate(zip(clip.frames, clip.labels, strict=True))
    )
    seen = builder.see(cut_out(record, REGIONS, number, "drawn") for record in records)
    return schedule_masks(builder, seen, KEYS, two_sided=True)


def test_sums_are_those_of_the_frames_that_are_put_together(cut: Cut) -> None:
    side = cut.clip.classes + 1
    for number, crop in enumerate(cut.crops):
        pairs = zip(masks_of(cut, number), cut.clip.labels, strict=True)
        frames = [
            confusion_of(mask_hw[crop.inner_in_crop], labels_HW[crop.inner_where], side)
            for mask_hw, labels_HW in pairs
        ]
        values = cut.parts[number].counts(KEYS)
        assert np.array_equal(values[:-1].reshape(side, side), sum(frames))
        assert values[-1] == pytest.approx(frame_iou(np.stack(frames).astype(np.float32)).sum(), rel=1e-6)
        assert values[-1] < len(frames)  # else nothing was lost, and nothing shown


def test_tables_of_weighted_pixels_say_what_the_sums_say(cut: Cut) -> None:
    for weights in (weights_of(cut.clip), share_weights(cut.clip)):
        for number, part in enumerate(cut.parts):
            lost = float(part.counts(KEYS)[:-1] @ weights.ravel())
            found = two_sided_total(table_of(cut, number, weights), KEYS)
            assert found == pytest.approx(part.frames - lost, rel=1e-5)
    ious = [two_sided_total(table_of(cut, n, None), KEYS) for n in range(2)]
    assert ious == pytest.approx([part.counts(KEYS)[-1] for part in cut.parts], rel=1e-5)


def test_a_grid_is_taken_where_it_wins_on_the_other_clips_of_the_kind() -> None:
    """Never by what it wins on the clip itself; one other clip says nothing."""
    assert where_it_wins(np.array([4.0, 4.1, 3.9, -9.0])).tolist() == [0, 0, 0, -9.0]
    assert where_it_wins(np.array([4.0, 4.0, -9.0]), np.mean).tolist() == [0, 0, -9.0]
    assert where_it_wins(np.array([4.0, 4.1, 3.9])).tolist() == [4.0, 4.1, 3.9]
    assert where_it_wins(np.array([-1.0, -1.1, -0.9])).tolist() == [0, 0, 0]
    assert (
        where_it_wins(np.array([5.0, 5.0])).tolist() == where_it_wins(np.array([5.0])).tolist() * 2 == [0, 0]
    )


def test_no_quality_is_said_of_a_share_that_no_schedule_keeps() -> None:
    assert np.isnan(at_share([(0.05, 0.8)], 0.04)) and at_share([(0.03, 0.7)], 0.04) == 0.7
    assert at_share([(0.03, 0.7), (0.05, 0.8)], 0.04) == pytest.approx(0.75)


def test_a_share_counts_overlap(cut: Cut) -> None:
    assert cut.share([KEYS, KEYS]) == pytest.approx(3 * (32 + 32) / 48 / 16)
    assert cut.share([KEYS, KEYS[:1]]) == pytest.approx(4 * 32 / 48 / 16)
