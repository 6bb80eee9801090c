"""Promise: colours that can be told apart, and a sheet that shows what it was given."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vidseg_core.drawing import PALETTE, Painter
from vidseg_core.drawing.paint import KEY_RGB
from vidseg_core.drawing.palette import FIRST_RGB
from vidseg_core.report import SheetRow, contact_sheet, save_png


def test_first_colours_differ_in_lightness_or_hue_for_colour_blind_eyes() -> None:
    deuteranopia = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    seen = np.vstack((PALETTE[:8], [FIRST_RGB])).astype(np.float64) @ deuteranopia.T
    distances = np.linalg.norm(seen[:, None] - seen[None, :], axis=2)[~np.eye(9, dtype=bool)]
    assert distances.min() > 25


def test_a_sheet_shows_every_picture_and_marks_the_keys(tmp_path: Path) -> None:
    pictures = [np.full((30, 40, 3), level, dtype=np.uint8) for level in (60, 90)]
    rows = [
        SheetRow(title="frame", pictures=pictures),
        SheetRow(title="fixed", pictures=pictures, keys=[True, False], captions=["", "0.91"]),
    ]
    sheet = contact_sheet(rows, ["frame 0", "frame 9"], Painter(["background", "disc"]), cell_width=120)
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
