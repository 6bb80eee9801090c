"""Promise: mIoU, per-class IoU and pixel accuracy equal what their definitions say, pixel set by pixel set.

Toolkits disagree about absent classes, ignored pixels and when to average; ours is written down and pinned
here.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.corpus import data_dir
from vidseg_core.metrics import ConfusionMatrix, count_pairs, iou_of, mean_iou, measure_fidelity
from vidseg_core.models.torchvision_compat import import_torchvision

import_torchvision()
import segmentation_models_pytorch as smp  # noqa: E402


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


def foreign_iou(prediction: np.ndarray, reference: np.ndarray, classes: int, ignore: int) -> np.ndarray:
    """Per class, from the counts of segmentation-models-pytorch, which drops ignored pixels; NaN: absent."""
    ids: list[Any] = [torch.from_numpy(labels.astype(np.int64))[None] for labels in (prediction, reference)]
    both, false_p, false_n, _ = smp.metrics.get_stats(
        *ids,
        mode="multiclass",
        ignore_index=ignore,
        num_classes=classes,
    )
    hit, either = both[0].numpy(), (both + false_p + false_n)[0].numpy()
    return np.divide(hit, either, out=np.full(classes, np.nan), where=either > 0)


@pytest.mark.parametrize("seed", range(6))
def test_iou_equals_an_independent_implementation_on_random_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 20))
    prediction, reference = rng.integers(0, classes, (2, 60, 80)).astype(np.uint8)
    prediction[prediction == 1] = 0  # a class that one side lacks
    reference[rng.random(reference.shape) < 0.2] = 255
    matrix = ConfusionMatrix(classes).update(prediction, reference)
    assert matrix.iou() == pytest.approx(foreign_iou(prediction, reference, classes, 255), nan_ok=True)
    seen = (reference != 255).astype(np.uint8)
    fast = count_pairs(np.where(seen, reference, 0).astype(np.uint8), prediction, classes, where_HW=seen)
    assert (fast == matrix.counts_CC).all() and iou_of(fast) == pytest.approx(matrix.iou(), nan_ok=True)


def real_masks() -> list[tuple[np.ndarray, np.ndarray, int]]:
    """(prediction, reference, classes): neighbouring label maps of real clips, void as 255."""
    root, pairs = data_dir(None), []
    for folder, void, classes in (("camvid/clip_0016E5_15hz/labels", 11, 11), ("face", 255, 5)):
        files = sorted((root / folder).rglob("*.png"))[:40:8] if root else []
        maps = [np.asarray(cv2.imread(str(file), cv2.IMREAD_UNCHANGED)) for file in files]
        maps = [np.where(labels == void, 255, labels).astype(np.uint8) for labels in maps if labels.ndim == 2]
        pairs += [
            (np.where(a == 255, 0, a).astype(np.uint8), b, classes)
            for a, b in zip(maps, maps[1:], strict=False)
            if a.shape == b.shape
        ]
    return pairs


def test_iou_equals_an_independent_implementation_on_real_masks() -> None:
    pairs = real_masks()
    if not pairs:
        pytest.skip("no real label maps here (set VIDSEG_DATA)")
    for prediction, reference, classes in pairs:
        ours = ConfusionMatrix(classes).update(prediction, reference).iou()
        assert ours == pytest.approx(foreign_iou(prediction, reference, classes, 255), nan_ok=True)
