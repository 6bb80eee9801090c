"""Promise: one colour per class id everywhere, the background untouched, and a sheet that shows what it was
given."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vidseg_core.report import SheetRow, blend, contact_sheet, mask_picture, save_png
from vidseg_core.report.overlay import KEY_RGB
from vidseg_core.store.export import PALETTE


def test_a_class_has_the_colour_of_the_exports_whatever_its_number() -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(mask_picture(labels), PALETTE[labels])
    for label in range(1, 256, 7):
        shown = blend(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), label, np.uint8), opacity=1.0)
        assert np.array_equal(shown[2, 2], PALETTE[label])
    assert PALETTE[:4].tolist() == [[0, 0, 0], [230, 159, 0], [86, 180, 233], [0, 158, 115]]


def test_first_colours_differ_in_lightness_or_hue_for_colour_blind_eyes() -> None:
    deuteranopia = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    seen = PALETTE[:8].astype(np.float64) @ deuteranopia.T
    distances = np.linalg.norm(seen[:, None] - seen[None, :], axis=2)[~np.eye(8, dtype=bool)]
    assert distances.min() > 25


def test_background_stays_and_classes_are_tinted() -> None:
    frame = np.full((8, 8, 3), 100, dtype=np.uint8)
    labels = np.zeros((8, 8), dtype=np.uint8)
    labels[4:, 4:] = 1
    shown = blend(frame, labels, opacity=1.0)
    assert (shown[:4, :4] == 100).all()
    assert shown[6, 6].tolist() == pytest.approx(PALETTE[1], abs=1)
    assert (shown[4, 4:] <= shown[6, 6] // 2).all()
    assert np.array_equal(mask_picture(labels)[6, 6], PALETTE[1])


def test_a_smaller_mask_is_scaled_to_the_frame() -> None:
    frame = np.zeros((16, 24, 3), dtype=np.uint8)
    shown = blend(frame, np.full((8, 8), 3, dtype=np.uint8))
    assert shown.shape == frame.shape and shown[5, 5].any()
    with pytest.raises(ValueError, match="opacity"):
        blend(frame, np.zeros((16, 24), np.uint8), opacity=2.0)


def test_a_sheet_shows_every_picture_and_marks_the_keys(tmp_path: Path) -> None:
    pictures = [np.full((30, 40, 3), level, dtype=np.uint8) for level in (60, 90)]
    rows = [
        SheetRow(title="frame", pictures=pictures),
        SheetRow(title="fixed", pictures=pictures, keys=[True, False], captions=["", "0.91"]),
    ]
    sheet = contact_sheet(rows, ["frame 0", "frame 9"], class_names=["background", "disc"], cell_width=120)
    for level in (60, 90):
        assert (sheet == level).all(axis=2).sum() > 2 * 0.7 * 90 * 120
    assert (sheet == KEY_RGB).all(axis=2).sum() > 500
    assert (sheet == PALETTE[1]).all(axis=2).sum() > 100
    save_png(tmp_path / "sheet.png", sheet)
    again_bgr = cv2.imread(str(tmp_path / "sheet.png"))
    assert again_bgr is not None and np.array_equal(again_bgr[:, :, ::-1], sheet)


def test_a_ragged_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="column"):
        contact_sheet([SheetRow(title="a", pictures=[np.zeros((4, 4, 3), np.uint8)])], ["x", "y"])
