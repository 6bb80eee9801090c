"""Which frames are looked at: those that were named, or a few that show the most."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from vidseg_core.config.errors import ConfigError, nearest
from vidseg_core.config.inspect import InspectConfig, parse_frames
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


def videos_of(run: Run, config: InspectConfig) -> list[str]:
    """The videos to look at; `ConfigError` for one that has no frames."""
    known = [video_id for video_id, _ in run.files()]
    for video_id in config.video:
        if video_id not in known:
            raise ConfigError("--video", f"{config.run} has no video {video_id!r}{nearest(video_id, known)}")
    return list(dict.fromkeys(config.video)) or known[: config.limit]


def rows_of(run: Run, video_id: str, config: InspectConfig, columns: Sequence[str] = COLUMNS) -> list[Row]:
    """The rows of the frames to look at, in order, without their masks."""
    rows = [row for row in run.rows(video_id, columns) if wanted(row, config)]
    if not config.chooses:
        rows = telling(rows, config.limit)
    return rows


def wanted(row: Row, config: InspectConfig) -> bool:
    """Was the frame asked for (or none at all)?"""
    if config.keys_only and not row["is_key"]:
        return False
    if config.frames:
        number = row["frame_index"]
        parts = parse_frames(config.frames)
        return any(first <= number <= last and (number - first) % step == 0 for first, last, step in parts)
    if config.from_s is None and config.to_s is None:
        return True
    seconds = row["pts_s"]  # a frame without a time is in no span of time
    return seconds is not None and (config.from_s or 0.0) <= seconds < (config.to_s or math.inf)


def telling(rows: Sequence[Row], count: int) -> list[Row]:
    """So many rows over the whole video: far from keys, the keys before these, and evenly spaced ones."""
    if len(rows) <= count:
        return list(rows)
    is_key_T = np.array([row["is_key"] for row in rows], bool)
    far = far_from_keys([is_key_T], max(1, count // 2))
    keys = [int(np.flatnonzero(is_key_T[: place + 1])[-1]) for place in far if is_key_T[: place + 1].any()]
    even = np.linspace(0, len(rows) - 1, count).round().astype(int).tolist()
    places = list(dict.fromkeys((*far, *keys, *even)))[:count]
    return [rows[place] for place in sorted(places)]


class Chosen:
    """A run of which exporters see the chosen frames only."""

    def __init__(self, run: Run, chosen: dict[str, set[int]] | None, videos: Sequence[str]) -> None:
        self._run, self._chosen, self._videos = run, chosen, list(videos)
        self.path = run.path

    def files(self, video_id: str | None = None) -> Iterator[tuple[str, list[Any]]]:
        return ((found, keys) for found, keys in self._run.files(video_id) if found in self._videos)

    def rows(self, video_id: str, columns: Iterable[str] | None = None) -> Iterator[Row]:
        for row in self._run.rows(video_id, list(columns) if columns is not None else None):
            if self._chosen is None or row["frame_index"] in self._chosen.get(video_id, ()):
                yield row

    def labels(self, video_id: str, row: Row) -> np.ndarray:
        return self._run.labels(video_id, row)
