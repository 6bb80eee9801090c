"""A sheet of frames with their masks: keys framed, numbers below."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vidseg_core.drawing import Painter
from vidseg_core.export.sources import Sources
from vidseg_core.inspection.pick import Row
from vidseg_core.report.overlay import SheetRow, contact_sheet
from vidseg_core.store import Run

COLUMNS = 4
CELL, READ = 260, 480
"""Pixels: width of a picture on the sheet; longest side at which masks are drawn, for smooth lines."""


def frame_sheet(
    run: Run,
    sources: Sources,
    painter: Painter,
    video_id: str,
    rows: Sequence[Row],
    *,
    caption: Callable[[Row], str] = lambda row: f"frame {row['frame_index']}",
    legend: bool = True,
) -> np.ndarray:
    """uint8 RGB: these frames of a video with their masks, without the frame where it is lost."""
    blocks = []
    for start in range(0, len(rows), COLUMNS):
        part = rows[start : start + COLUMNS]
        pictures = [_picture(run, sources, painter, video_id, row) for row in part]
        missing = COLUMNS - len(part) if start else 0
        blocks.append(
            SheetRow(
                title="" if part[0]["pts_s"] is None else f"{part[0]['pts_s']:.1f} s",
                pictures=[*pictures, *[np.full_like(pictures[0], 255)] * missing],
                keys=[*(bool(row["is_key"]) and not painter.columns for row in part), *[False] * missing],
                captions=[*map(caption, part), *[""] * missing],
            )
        )
    titles = [""] * len(blocks[0].pictures)
    return contact_sheet(blocks, titles, painter if legend else None, cell_width=CELL)


def _picture(run: Run, sources: Sources, painter: Painter, video_id: str, row: Row) -> np.ndarray:
    number = row["frame_index"]
    picture_HW3 = painter.over(sources.frame(video_id, number, READ), run.mask(video_id, number))
    painter.mark_keys(picture_HW3, row, corner=False)
    return picture_HW3
