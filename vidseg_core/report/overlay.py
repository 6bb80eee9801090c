"""Sheets of frames side by side, and pictures as a page holds them.

Shape suffixes: H W rows and columns, 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from vidseg_core.drawing.paint import KEY_RGB, Painter
from vidseg_core.report.style import data_uri
from vidseg_core.store.atomic import write_whole

INK = (32, 32, 32)
PAPER = (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX
THUMB = 336
"""Longest side of a picture in a strip, pixels: twice what is shown, for sharp screens."""
GAP, TITLE_HEIGHT, ROW_LABEL_WIDTH = 6, 26, 118


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """One row of a contact sheet: equally sized pictures, one for each column."""

    title: str
    pictures: Sequence[np.ndarray]
    """uint8 RGB each."""
    keys: Sequence[bool] = field(default=())
    """Which of them are key frames; empty: none is marked."""
    captions: Sequence[str] = field(default=())
    """A few characters under the mark of each picture, such as a score."""


def contact_sheet(
    rows: Sequence[SheetRow],
    column_titles: Sequence[str],
    painter: Painter | None = None,
    *,
    cell_width: int = 220,
) -> np.ndarray:
    """uint8 RGB: rows of pictures under column titles, key frames framed, the painter's legend below."""
    if not rows or any(len(row.pictures) != len(column_titles) for row in rows):
        raise ValueError("every row of a contact sheet needs one picture for each column title")
    height, width = rows[0].pictures[0].shape[:2]
    cell_height = max(1, height * cell_width // width)
    top = TITLE_HEIGHT
    sheet_width = ROW_LABEL_WIDTH + len(column_titles) * (cell_width + GAP) + GAP
    sheet = np.full((top + len(rows) * (cell_height + GAP), sheet_width, 3), PAPER, dtype=np.uint8)
    for column, title in enumerate(column_titles):
        _text(sheet, title, (ROW_LABEL_WIDTH + column * (cell_width + GAP) + GAP, top - 9))
    for number, row in enumerate(rows):
        corner = top + number * (cell_height + GAP)
        _text_block(sheet, row.title, (8, corner + 20))
        for column, picture in enumerate(row.pictures):
            left = ROW_LABEL_WIDTH + column * (cell_width + GAP) + GAP
            cell = _cell(picture, (cell_height, cell_width), row, column)
            sheet[corner : corner + cell_height, left : left + cell_width] = cell
    return painter.with_legend(sheet) if painter else sheet


def _cell(picture: np.ndarray, size: tuple[int, int], row: SheetRow, column: int) -> np.ndarray:
    shrinking = picture.shape[1] >= size[1]
    cell = cv2.resize(
        picture, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_NEAREST
    )
    if row.keys and row.keys[column]:
        cv2.rectangle(cell, (0, 0), (size[1] - 1, size[0] - 1), KEY_RGB, 5)
        cv2.rectangle(cell, (0, 0), (38, 20), KEY_RGB, cv2.FILLED)
        _text(cell, "KEY", (5, 15), colour=PAPER)
    if row.captions and row.captions[column]:
        (text_width, _), _ = cv2.getTextSize(row.captions[column], FONT, 0.45, 1)
        corner = (size[1] - text_width - 12, size[0] - 20)
        cv2.rectangle(cell, corner, (size[1], size[0]), INK, cv2.FILLED)
        _text(cell, row.captions[column], (corner[0] + 6, size[0] - 6), colour=PAPER)
    return cell


def _text(picture: np.ndarray, text: str, at: tuple[int, int], *, colour: tuple[int, int, int] = INK) -> None:
    cv2.putText(picture, text, at, FONT, 0.45, colour, 1, cv2.LINE_AA)


def _text_block(picture: np.ndarray, text: str, at: tuple[int, int]) -> None:
    for number, line in enumerate(text.split("\n")):
        _text(picture, line, (at[0], at[1] + 18 * number))


def save_png(path: str | Path, picture_HW3: np.ndarray) -> None:
    """Write an RGB picture as PNG; OSError names the path."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2BGR))
    if not ok:
        raise OSError(f"could not encode {path}")
    write_whole(path, data.tobytes(), sync=False)


# --- photographs for the page -----------------------------------------------------------------------------


def shown_labels(labels_HW: np.ndarray, classes: int) -> np.ndarray:
    """What an evaluation calls `void` (the id after the classes) in the colour of no label."""
    return np.where(labels_HW >= classes, 255, labels_HW).astype(np.uint8)


def jpeg(picture_HW3: np.ndarray, quality: int = 82) -> bytes:
    """An RGB picture as JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise OSError("a picture could not be encoded as JPEG")
    return data.tobytes()


def jpeg_uri(picture_HW3: np.ndarray, longest: int = THUMB) -> str:
    """`data:` address of an RGB picture, scaled down."""
    height, width = picture_HW3.shape[:2]
    scale = longest / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture_HW3 = cv2.resize(picture_HW3, size, interpolation=cv2.INTER_AREA)
    return data_uri(jpeg(picture_HW3), "image/jpeg")


def side_by_side(pictures: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    """Pictures of one height in a row on white."""
    height = pictures[0].shape[0]
    bar = np.full((height, gap, 3), 255, np.uint8)
    row = [pictures[0]]
    for picture in pictures[1:]:
        if picture.shape[0] != height:
            width = max(1, round(picture.shape[1] * height / picture.shape[0]))
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        row += [bar, picture]
    return np.concatenate(row, axis=1)
