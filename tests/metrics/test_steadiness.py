"""Promise: VC8 and VC16 are what VSPW's script says, window by window, and Tsb is what DAVIS's T means: 0 for
a shape that only moves, higher the more its contour jitters.
"""

from __future__ import annotations

import numpy as np
import pytest

from vidseg_core.metrics import VideoConsistency, stability, temporal_stability
from vidseg_core.metrics.stability import MOST, contour_of
from vidseg_core.metrics.video_consistency import WINDOWS

VOID = 4


def reference_vc(masks: list[np.ndarray], labels: list[np.ndarray], length: int) -> list[float]:
    """As the published script has it, window by window; but void and unlabelled pixels are never unbroken."""
    found = []
    for start in range(len(masks) - length):
        still = labels[start] != 255
        kept = masks[start] != VOID
        for place in range(start + 1, start + length):
            still &= labels[place] == labels[start]
            kept &= masks[place] == masks[start]
        if still.any():
            found.append((still & kept).sum() / still.sum())
    return found


def flickering(rng: np.random.Generator, frames: int, ids: list[int]) -> list[np.ndarray]:
    """Masks of which a pixel changes now and then."""
    mask = rng.choice(ids, (9, 11)).astype(np.uint8)
    found = []
    for _ in range(frames):
        mask = np.where(rng.random(mask.shape) < 0.03, rng.choice(ids, mask.shape), mask).astype(np.uint8)
        found.append(mask)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_video_consistency_equals_the_window_by_window_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vc = VideoConsistency(VOID)
    expected: dict[int, list[float]] = {length: [] for length in WINDOWS}
    for frames in (30, 8, 17):  # runs; one has not even one window that counts
        masks, labels = flickering(rng, frames, [0, 1, 2, VOID]), flickering(rng, frames, [0, 1, 255])
        for mask, label in zip(masks, labels, strict=True):
            vc.update(mask, label)
        vc.end_run()
        for length in WINDOWS:
            expected[length] += reference_vc(masks, labels, length)
    for length in WINDOWS:
        assert vc.windows[length] == len(expected[length]) > 1
        assert vc.vc(length) == pytest.approx(np.mean(expected[length])) and 0 < vc.vc(length) < 1


def test_no_window_reaches_over_a_frame_without_labels() -> None:
    vc, mask = VideoConsistency(VOID), np.zeros((4, 5), np.uint8)
    for number in range(20):
        vc.update(mask, None if number == 9 else mask)
    assert vc.windows == {8: (9 - 8) + (10 - 8), 16: 0}
    assert vc.vc(8) == 1.0 and np.isnan(vc.vc(16))


def disc(x: float, y: float, *, jitter: float = 0.0, seed: int = 0) -> np.ndarray:
    """A round mask; `jitter`: how much its edge goes in and out, pixels."""
    row, column = np.mgrid[0:96, 0:96]
    angle = np.arctan2(row - y, column - x)
    waves = np.random.default_rng(seed).normal(0, jitter, 24)
    return (
        np.hypot(row - y, column - x) < 24 + np.interp(angle, np.linspace(-np.pi, np.pi, 24), waves)
    ).astype(np.uint8)


def test_stability_is_zero_for_a_shape_that_moves_and_grows_with_jitter() -> None:
    still, moved = disc(40, 40), disc(52, 45)
    assert temporal_stability(still, still, 2) == 0.0
    assert temporal_stability(still, moved, 2) < 0.004
    rough = [temporal_stability(still, disc(40, 40, jitter=jitter), 2) for jitter in (1.0, 3.0, 6.0)]
    assert 0.004 < rough[0] < rough[1] < rough[2] < 1


def test_stability_does_not_depend_on_where_a_contour_begins() -> None:
    """Contours are traced from their topmost pixel, which is another one when the shape turns."""
    mask = disc(48, 48, jitter=5.0)
    turned = np.rot90(mask).copy()  # as a shape it is another one, but its own turn is as stable
    assert temporal_stability(turned, turned, 2) == 0.0
    first = temporal_stability(mask, disc(48, 48, jitter=5.0, seed=1), 2)
    both = temporal_stability(turned, np.rot90(disc(48, 48, jitter=5.0, seed=1)).copy(), 2)
    assert both == pytest.approx(first, rel=0.1)


def flower(petals: int, turn: float = 0.0) -> np.ndarray:
    """A mask with a contour of some thousand pixels."""
    row, column = np.mgrid[-250:250, -250:250]
    angle = np.arctan2(row, column) + turn
    return (np.hypot(row, column) < 150 + 80 * np.sin(petals * angle)).astype(np.uint8)


def test_long_contours_are_described_by_a_bounded_number_of_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair of frames of 1024x2048 pixels took minutes and gigabytes: the cost grows with points squared."""
    first, second = flower(6), flower(6, turn=0.05)
    assert len(contour_of(first == 1)) == MOST
    capped = temporal_stability(first, second, 2)
    monkeypatch.setattr(stability, "MOST", 10_000)
    assert len(contour_of(first == 1)) > 1.3 * MOST
    assert capped == pytest.approx(temporal_stability(first, second, 2), abs=0.01)


def test_classes_that_one_frame_lacks_say_nothing() -> None:
    nothing, mask = np.full((96, 96), VOID, np.uint8), disc(40, 40)
    mask[mask == 0] = VOID
    assert np.isnan(temporal_stability(nothing, mask, 2)) and temporal_stability(mask, mask, 2) == 0.0
