"""Which frames are looked at: those that were named, or a few that show the most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidseg_core.config.inspect import InspectConfig
from vidseg_core.metrics import far_from_keys
from vidseg_core.store import Run

Row = dict[str, Any]
COLUMNS = (
    "pts_s",
    "is_key",
    "key_frame_index",
    "decision_score",
    "kar",
    "lkd",
    "is_corrupt",
    "height",
    "width",
    "class_pixels",
)


def rows_of(run: Run, video_id: str, config: InspectConfig, columns: Sequence[str] = COLUMNS) -> list[Row]:
    """The rows of the frames to look at, in order, without their masks."""
    rows = [row for row in run.rows(video_id, columns) if config.wants(row)]
    if not config.chooses:
        rows = telling(rows, config.limit)
    return rows


def telling(rows: Sequence[Row], count: int) -> list[Row]:
    """So many rows over the whole video: far from keys, the keys before these, and what fills the gaps."""
    if len(rows) <= count:
        return list(rows)
    is_key_T = np.array([row["is_key"] for row in rows], bool)
    far = far_from_keys([is_key_T], max(1, count // 2))
    keys = [int(np.flatnonzero(is_key_T[: place + 1])[-1]) for place in far if is_key_T[: place + 1].any()]
    chosen_T = np.zeros(len(rows), bool)
    chosen_T[list(dict.fromkeys((*far, *keys)))[:count]] = True
    while chosen_T.sum() < count:
        chosen_T[far_from_keys([chosen_T], 1)] = True
    return [rows[place] for place in np.flatnonzero(chosen_T).tolist()]
