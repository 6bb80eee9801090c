"""Promise: mIoU, per-class IoU and pixel accuracy equal what their definitions say, pixel set by pixel set.

Toolkits disagree about absent classes, ignored pixels and when to average; ours is written down and pinned
here.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseg_core.metrics import ConfusionMatrix, mean_iou, measure_fidelity


def brute_force_iou(
    pairs: list[tuple[np.ndarray, np.ndarray]], classes: int, ignore: int | None
) -> list[float | None]:
    """Straight from the definition: sets of (frame, row, column), one class at a time."""
    result: list[float | None] = []
    for label in range(classes):
        predicted, true = set(), set()
        for number, (prediction, reference) in enumerate(pairs):
            for position, wanted in np.ndenumerate(reference):
                if wanted == ignore:
                    continue
                if prediction[position] == label:
                    predicted.add((number, *position))
                if wanted == label:
                    true.add((number, *position))
        union = predicted | true
        result.append(len(predicted & true) / len(union) if union else None)
    return result


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 6), frames=st.integers(1, 3), ignored=st.booleans()
)
def test_iou_equals_the_definition(seed: int, classes: int, frames: int, ignored: bool) -> None:
    random = np.random.default_rng(seed)
    shape = (int(random.integers(1, 7)), int(random.integers(1, 7)))
    pairs = []
    for _ in range(frames):
        prediction = random.integers(0, classes, shape).astype(np.uint8)
        reference = random.integers(0, classes, shape).astype(np.uint8)
        if ignored:
            reference[random.random(shape) < 0.3] = 255
        pairs.append((prediction, reference))
    matrix = ConfusionMatrix(classes)
    for prediction, reference in pairs:
        matrix.update(prediction, reference)
    expected = brute_force_iou(pairs, classes, 255)
    assert [None if np.isnan(value) else value for value in matrix.iou()] == pytest.approx(expected)
    present = [value for value in expected if value is not None]
    assert matrix.mean_iou() == pytest.approx(np.mean(present) if present else np.nan, nan_ok=True)


def test_an_absent_class_is_skipped_and_a_falsely_predicted_one_counts() -> None:
    reference = np.zeros((2, 2), dtype=np.uint8)
    assert mean_iou(reference, reference, 5) == 1.0
    prediction = reference.copy()
    prediction[0, 0] = 4
    assert mean_iou(prediction, reference, 5) == pytest.approx((0.75 + 0.0) / 2)


def test_only_the_reference_can_ignore_a_pixel() -> None:
    reference = np.array([[0, 255]], dtype=np.uint8)
    assert mean_iou(np.array([[0, 1]], dtype=np.uint8), reference, 2) == 1.0
    with pytest.raises(ValueError, match=r"prediction has class ids 1\.\.255"):
        mean_iou(np.array([[255, 1]], dtype=np.uint8), np.array([[0, 1]], dtype=np.uint8), 2)


def test_merging_equals_updating_one_matrix() -> None:
    random = np.random.default_rng(0)
    maps = random.integers(0, 4, (6, 8, 9)).astype(np.uint8)
    whole = ConfusionMatrix(4).update(maps[:3], maps[3:])
    parts = [ConfusionMatrix(4).update(maps[number], maps[3 + number]) for number in range(3)]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert np.array_equal(merged.counts_CC, whole.counts_CC)
    assert merged.pixel_accuracy() == pytest.approx(float(np.mean(maps[:3] == maps[3:])))


def test_nothing_counted_is_nan_not_zero() -> None:
    matrix = ConfusionMatrix(3)
    assert np.isnan(matrix.mean_iou()) and np.isnan(matrix.pixel_accuracy()) and matrix.pixels == 0


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        mean_iou(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)
    with pytest.raises(ValueError, match="num_classes"):
        ConfusionMatrix(0)
    with pytest.raises(ValueError, match="cannot merge"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))


def test_fidelity_of_a_stream_with_itself_is_one() -> None:
    stream = np.random.default_rng(1).integers(0, 5, (4, 6, 7)).astype(np.uint8)
    same = measure_fidelity(stream, stream, 5)
    assert (same.frames, same.mean_iou, same.pixel_agreement) == (4, 1.0, 1.0)
    late = stream.copy()
    late[2] = stream[1]
    other = measure_fidelity(iter(late), iter(stream), 5)
    assert other.frame_agreement[2] == np.mean(stream[1] == stream[2])
    assert other.pixel_agreement == pytest.approx(other.frame_agreement.mean())


def test_fidelity_refuses_streams_of_different_length() -> None:
    stream = np.zeros((3, 2, 2), dtype=np.uint8)
    with pytest.raises(ValueError, match="zip"):
        measure_fidelity(stream[:2], stream, 2)
