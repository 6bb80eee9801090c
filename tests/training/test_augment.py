"""Promise: whatever varies a sample moves frame and labels together, invents no class, and depends on the
generator alone. (A net trained on labels that lie beside their pixels looks well and scores badly.)"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vidseg_core.config.recipes import AugmentRecipe
from vidseg_core.datasets.records import IGNORE, Record
from vidseg_core.training.augment import augment

COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
EVERYTHING: dict[str, Any] = dict(
    scale_min=0.4, scale_max=2.0, rotate=30.0, stretch=0.3, focus=0.5, colour=1.0, blur=0.5
)


def record(seed: int = 0, height: int = 60, width: int = 80) -> Record:
    """Large patches of four classes, painted in one colour each."""
    coarse = np.random.default_rng(seed).integers(0, 4, (4, 5)).astype(np.uint8)
    labels_HW = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    return Record(video_id="v", frame_index=0, frame_HW3=COLOURS[labels_HW], labels_HW=labels_HW)


def recipe(crop: int = 48, **fields: Any) -> AugmentRecipe:
    plain: dict[str, Any] = dict(scale_min=1.0, scale_max=1.0, flip=False)
    return AugmentRecipe(crop=crop, **{**plain, **fields})


def inside(labels_HW: np.ndarray) -> np.ndarray:
    """Pixels whose neighbourhood is of one label. The crop's edge is none: the frame may end there."""
    as_byte = np.pad(labels_HW.astype(np.uint8), 2, constant_values=IGNORE)
    kernel = np.ones((5, 5), np.uint8)
    alike = cv2.erode(as_byte, kernel) == cv2.dilate(as_byte, kernel)
    return alike[2:-2, 2:-2] & (labels_HW != IGNORE)


@given(
    seed=st.integers(0, 10_000),
    rotate=st.floats(0, 180),
    low=st.floats(0.3, 1.0),
    high=st.floats(1.0, 3.0),
    stretch=st.floats(0, 0.5),
    focus=st.sampled_from([0.0, 1.0]),
    height=st.integers(20, 90),
)
@example(seed=230, rotate=0.0, low=0.6875, high=1.0, stretch=0.0, focus=1.0, height=28)
def test_labels_stay_on_their_pixels(
    seed: int, rotate: float, low: float, high: float, stretch: float, focus: float, height: int
) -> None:
    geometry = recipe(rotate=rotate, scale_min=low, scale_max=high, stretch=stretch, focus=focus, flip=True)
    frame_3HW, labels_HW = augment(record(seed, height), geometry, np.random.default_rng(seed))
    distance = np.abs(frame_3HW[:, None] - COLOURS.T[:, :, None, None] / 255.0).sum(axis=0)
    inner = inside(labels_HW)
    assert (distance.argmin(axis=0)[inner] == labels_HW[inner]).all()
    assert set(np.unique(labels_HW)) <= {0, 1, 2, 3, IGNORE}


@given(seed=st.integers(0, 10_000))
def test_samples_are_well_formed_and_repeatable(seed: int) -> None:
    first, again = (augment(record(seed), recipe(**EVERYTHING), np.random.default_rng(seed)) for _ in "ab")
    assert first[0].dtype == np.float32 and first[1].dtype == np.int64
    assert first[0].shape == (3, 48, 48) and first[1].shape == (48, 48)
    assert 0.0 <= first[0].min() and first[0].max() <= 1.0
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])


def test_nothing_to_vary_gives_the_frame_itself() -> None:
    square = record(height=48, width=48)
    assert square.labels_HW is not None
    frame_3HW, labels_HW = augment(square, recipe(), np.random.default_rng(0))
    assert np.array_equal(frame_3HW, square.frame_HW3.transpose(2, 0, 1).astype(np.float32) / 255)
    assert np.array_equal(labels_HW, square.labels_HW)


def test_colour_and_quality_leave_the_labels_alone() -> None:
    for seed in range(8):
        _, labels_HW = augment(record(seed), recipe(rotate=20.0), np.random.default_rng(seed))
        varied_3HW, same_HW = augment(
            record(seed), recipe(rotate=20.0, colour=1.0, blur=1.0), np.random.default_rng(seed)
        )
        assert np.array_equal(labels_HW, same_HW)
        assert varied_3HW.std() > 0


def test_what_the_frame_does_not_cover_is_ignored() -> None:
    _, labels_HW = augment(record(), recipe(crop=160), np.random.default_rng(0))
    assert (labels_HW != IGNORE).sum() == 60 * 80


def test_a_frame_that_is_larger_than_the_crop_fills_it() -> None:
    for seed in range(20):
        _, labels_HW = augment(record(), recipe(flip=True), np.random.default_rng(seed))
        assert (labels_HW != IGNORE).all()


def test_a_record_without_labels_teaches_nothing() -> None:
    unlabelled = record()
    unlabelled.labels_HW = None
    _, labels_HW = augment(unlabelled, recipe(**EVERYTHING), np.random.default_rng(0))
    assert (labels_HW == IGNORE).all()


def test_half_of_the_samples_are_mirrored() -> None:
    square = record(height=48, width=48)
    assert square.labels_HW is not None
    mirrored = [
        np.array_equal(
            augment(square, recipe(flip=True), np.random.default_rng(seed))[1], square.labels_HW[:, ::-1]
        )
        for seed in range(60)
    ]
    assert 15 < sum(mirrored) < 45


@pytest.mark.parametrize(("focus", "at_least", "at_most"), [(0.0, 0, 30), (1.0, 40, 100)])
def test_focus_finds_a_class_of_few_pixels(focus: float, at_least: int, at_most: int) -> None:
    labels_HW = np.zeros((400, 400), np.uint8)
    labels_HW[300:304, 80:84] = 1
    rare = Record(
        video_id="v", frame_index=0, frame_HW3=np.zeros((400, 400, 3), np.uint8), labels_HW=labels_HW
    )
    samples = (augment(rare, recipe(focus=focus), np.random.default_rng(seed)) for seed in range(100))
    assert at_least <= sum(bool((labels == 1).any()) for _, labels in samples) <= at_most


@given(seed=st.integers(0, 10_000), rotate=st.floats(0, 180), height=st.integers(20, 90))
def test_what_shows_behind_has_its_own_labels_and_leaves_the_frame_alone(
    seed: int, rotate: float, height: int
) -> None:
    geometry = recipe(rotate=rotate, scale_min=0.2, scale_max=0.9, flip=True)
    alone_3HW, alone_HW = augment(record(seed), geometry, np.random.default_rng(seed))
    both_3HW, both_HW = augment(
        record(seed),
        replace(geometry, behind=1.0),
        np.random.default_rng(seed),
        lambda rng: record(int(rng.integers(99)), height),
    )
    covered_HW = alone_HW != IGNORE
    assert np.array_equal(both_3HW[:, covered_HW], alone_3HW[:, covered_HW])
    assert np.array_equal(both_HW[covered_HW], alone_HW[covered_HW])
    assert (both_HW != IGNORE).mean() >= covered_HW.mean()
    distance = np.abs(both_3HW[:, None] - COLOURS.T[:, :, None, None] / 255.0).sum(axis=0)
    inner = inside(both_HW) & inside(covered_HW.astype(np.uint8))
    assert (distance.argmin(axis=0)[inner] == both_HW[inner]).all()


def test_a_frame_behind_fills_the_crop_when_nothing_is_turned() -> None:
    geometry = recipe(scale_min=0.3, scale_max=0.3, behind=1.0)
    _, labels_HW = augment(record(), geometry, np.random.default_rng(0), lambda rng: record(1))
    assert (labels_HW != IGNORE).all()
    _, labels_HW = augment(
        record(), replace(geometry, behind=0.0), np.random.default_rng(0), lambda rng: record(1)
    )
    assert (labels_HW == IGNORE).any()
