"""Promise: a mask over its frame hides neither: borders are smooth at any size, every colour is that of the
legend, and what no class covers is the frame, bit for bit.

Why: overlays had the steps of masks made at working size, hid faces, and left roads (class 0) without colour.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vidseg_core.drawing import PALETTE, Painter
from vidseg_core.drawing.paint import smooth_labels
from vidseg_core.drawing.palette import FIRST_RGB, class_colours

NAMES = ("background", "skin", "eyes")
FRAME = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)


def half(label: int, *, other: int = 0, shape: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A mask whose right half is `label`."""
    labels = np.full(shape, other, np.uint8)
    labels[:, shape[1] // 2 :] = label
    return labels


def disc(side: int) -> np.ndarray:
    y, x = (np.indices((side, side)) + 0.5) / side - 0.5
    return (np.hypot(y, x) < 0.35).astype(np.uint8)


@pytest.mark.parametrize("opacity", [0.0, 0.35, 1.0])
def test_the_background_is_the_frame_and_areas_are_tinted(opacity: float) -> None:
    shown = Painter(NAMES, opacity=opacity).over(FRAME, half(1))
    assert np.array_equal(shown[:, :60], FRAME[:, :60])
    wanted = FRAME[:, 70:] * (1 - opacity) + PALETTE[1] * opacity
    assert np.abs(shown[:, 70:] - wanted).max() <= 2


def test_a_line_of_the_pure_colour_runs_around_an_area() -> None:
    black = np.zeros((540, 960, 3), np.uint8)
    for label in (1, 2):
        shown = Painter(NAMES, opacity=0.0).over(black, half(label, shape=(270, 480))).astype(int)
        line = shown[250, np.abs(shown[250]).sum(axis=1).argmax()]
        assert np.abs(line - PALETTE[label]).max() < 25


def test_every_class_has_the_colour_of_the_exports() -> None:
    for label in range(1, 256, 7):
        shown = Painter(opacity=1.0).over(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), label, np.uint8))
        assert np.abs(shown[2, 2].astype(int) - PALETTE[label]).max() <= 1
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(Painter().over(None, labels), PALETTE[labels])


def test_class_0_is_coloured_unless_it_is_background_or_nameless() -> None:
    road = Painter(("road", "car"), opacity=1.0)
    assert (road.over(FRAME, half(1))[10, 10] == FIRST_RGB).all()
    for names in (("__background__", "car"), ()):
        assert (Painter(names, opacity=1.0).over(FRAME, half(1))[10, 10] == FRAME[10, 10]).all()
    assert (class_colours(("BG",)) == PALETTE).all()


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_borders_have_no_steps(factor: int) -> None:
    side = 64 * factor
    smooth, _ = smooth_labels(disc(64), (side, side))
    steps = cv2.resize(disc(64), (side, side), interpolation=cv2.INTER_NEAREST)
    wrong = [int((shown != disc(side)).sum()) for shown in (smooth, steps)]
    assert wrong[0] <= wrong[1] * (1 if factor == 1 else 0.5) + 8


def test_a_mask_larger_than_its_frame_is_drawn_as_well() -> None:
    labels, line = smooth_labels(disc(256), (64, 64))
    assert (labels != disc(64)).sum() <= 12
    assert 64 < np.count_nonzero(line) < 900


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (8, 8), (900, 3)])
def test_masks_of_any_size_go_over_frames_of_any_size(shape: tuple[int, int]) -> None:
    frozen = FRAME[:9, ::-2]
    frozen.flags.writeable = False
    shown = Painter(("road", "car"), opacity=1.0).over(frozen, np.zeros(shape, np.uint8))
    assert shown.shape == frozen.shape and (shown == FIRST_RGB).all()


def test_a_stripe_of_two_pixels_stays() -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[30:32] = 3
    shown, _ = smooth_labels(labels, (240, 320))
    assert set(np.unique(shown[:, 160])) == {0, 3} and 5 <= (shown[:, 160] == 3).sum() <= 11


def test_the_legend_shows_the_colours_that_are_seen() -> None:
    strip = Painter(("road", "car"), unlabelled=True).legend(400)
    for colour in (FIRST_RGB, PALETTE[1], PALETTE[255]):
        assert (strip == colour).all(axis=2).sum() > 80
    assert not (Painter(NAMES).legend(400) == FIRST_RGB).all(axis=2).any()
    assert Painter().with_legend(FRAME).shape == FRAME.shape
