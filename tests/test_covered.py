"""Promise: `benchmarks.covered` calls those pixels wrong at which the temporal loss asks for another class
than the label, and no others.

Why: that V of the print hardly tells them from others is the reason that is given for what the loss costs.
"""

from __future__ import annotations

import numpy as np

from benchmarks.clips import Material
from benchmarks.covered import of_material, pairs
from vidseg_core.config.recipes import TemporalRecipe
from vidseg_core.training.flow_clips import FlowClip
from vidseg_core.training.temporal_loss import FrozenFlow


def clip() -> FlowClip:
    """Nothing moves; a square has another label from frame 3 on, and the upper left corner has none."""
    picture_HW3 = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    labels_THW = np.zeros((6, 48, 64), np.uint8)
    labels_THW[3:, 16:32, 16:32] = 1
    labels_THW[:, :8, :8] = 255
    return FlowClip(name="still", frames_THW3=np.stack([picture_HW3] * 6), labels_THW=labels_THW)


def test_wrong_pixels_are_those_whose_label_another_comes_to() -> None:
    flow = FrozenFlow(TemporalRecipe(gap=3), device="cpu", seed=0)
    (found,) = pairs(clip(), 3, flow)
    known_HW, differ_HW = found[3:]
    square_HW = np.zeros((48, 64), bool)
    square_HW[16:32, 16:32] = True
    assert not known_HW[:8, :8].any() and known_HW[8:, 8:].all()
    assert (differ_HW == square_HW).all()


def test_where_nothing_looks_different_v_tells_nothing() -> None:
    material = Material(name="still", class_names=("a", "b"), train=[clip()], test=[])
    (line,) = of_material(material, 3, [4.4])
    wrong = 16 * 16 / (48 * 64 - 64)
    assert f"{100 * wrong:4.1f} % of pixels are wrong" in line
    assert "mean V 1.00, elsewhere 1.00" in line and f"share of the sum {100 * wrong:.1f} %" in line
