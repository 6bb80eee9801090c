"""The colours of the classes with their names: a strip that goes below a picture and covers none of it.

A class that leaves the picture as it is (the background) has an empty box.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidseg_core.drawing.palette import PALETTE, class_colours

UNLABELLED = 255
_INK, _PAPER = (32, 32, 32), (255, 255, 255)
_BOX, _GAP, _ROW, _EDGE, _TYPE = 12, 16, 20, 6, 13
"""Pixels: side of a box, room between entries, height of a row, left edge, size of the type."""


def legend_strip(
    class_names: Sequence[str],
    width: int,
    *,
    unlabelled: bool = False,
    most_rows: int = 6,
) -> np.ndarray:
    """uint8 RGB of this width and an even height: a box and a name for each class, in rows as they fit.

    `unlabelled`: the colour of 255 too. What `most_rows` have no room for is counted at the end. Height 0
    where there are no names.
    """
    entries = list(enumerate(class_names[: len(PALETTE)]))  # a mask holds no other
    if class_names and unlabelled and len(class_names) <= UNLABELLED:
        entries.append((UNLABELLED, "no label"))
    rows, rest = _rows([name for _, name in entries], width, most_rows)
    strip = Image.new("RGB", (width, _ROW * len(rows) + 4 * bool(rows)), _PAPER)
    pen, waiting, colours = ImageDraw.Draw(strip), iter(entries), class_colours(class_names)
    for number, row in enumerate(rows):
        top = _ROW * number + 4
        for left, (label, name) in zip(row, waiting, strict=False):
            fill = tuple(int(part) for part in colours[label]) if colours[label].any() else _PAPER
            pen.rectangle((left, top + 1, left + _BOX, top + 1 + _BOX), fill=fill, outline=_INK)
            pen.text((left + _BOX + 6, top), name, fill=_INK, font=_font())
    if rest:
        pen.text((width - _EDGE, 4 + _ROW * (len(rows) - 1)), rest, fill=_INK, font=_font(), anchor="ra")
    return np.asarray(strip)


def _rows(names: Sequence[str], width: int, most: int) -> tuple[list[list[int]], str]:
    """Left edges of the entries, row by row, and how many more there are in words."""
    wide = [_BOX + 6 + round(_font().getlength(name)) for name in names]
    rows: list[list[int]] = []
    left = width
    for size in wide:
        if left + size > width - _EDGE and (not rows or rows[-1]):
            rows.append([])
            left = _EDGE
        rows[-1].append(left)
        left += size + _GAP
    if len(rows) <= most:
        return rows, ""
    rows = rows[:most]
    while True:
        shown = sum(map(len, rows))
        rest = f"and {len(names) - shown} more"
        end = rows[-1][-1] + wide[shown - 1] if rows[-1] else 0
        if not rows[-1] or end + _GAP + _font().getlength(rest) <= width - _EDGE:
            return rows, rest
        rows[-1].pop()


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_TYPE)
