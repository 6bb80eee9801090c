"""What whole clips hold of each class, for the tables of ``--quality weighted``.

Model: a wrong pixel costs what its class makes it cost in the *clip* (`quality`). A clip that is one table
weighs itself; one of several regions or segments is counted before its tables are made, a task a unit, each
in its own part of the frames. Invariant: the counts are whole numbers and belong to the clip, so they depend
neither on which tables are there already nor on who counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vidseg_core.config.build_episodes import BuildEpisodesConfig
from vidseg_core.config.catalogue import WEIGHTED
from vidseg_core.datasets.records import DatasetError
from vidseg_core.episodes.making import make_builder
from vidseg_core.episodes.quality import ClassPixels
from vidseg_core.episodes.sources import Unit, read_unit
from vidseg_core.media import MediaError


def parts_to_count(units: Sequence[Unit], todo: Sequence[Unit], config: BuildEpisodesConfig) -> list[Unit]:
    """Of all `units` those of the clips that are to have tables (`todo`) and have several."""
    if config.quality != WEIGHTED:
        return []
    tables = Counter(unit.video for unit in set(units))  # an estimate counts units of a sample several times
    wanted = {unit.video for unit in todo if tables[unit.video] > 1}
    return [unit for unit in units if unit.video in wanted]


def count_row(
    item: Mapping[str, Any], config: BuildEpisodesConfig, classes: tuple[str, ...], device: str
) -> dict[str, Any]:
    """What a Ray task does: how much one unit holds of each class, or why that is not known."""
    unit, pixels, counted, message = Unit(**item), list[int](), list[bool](), ""
    builder = make_builder(config, classes, device).builder
    try:
        found = builder.class_pixels(read_unit(unit, config.working_size, config.split))
        pixels, counted = found.pixels_C.tolist(), found.counted_T.tolist()
    except (DatasetError, MediaError) as problem:
        message = str(problem)
    return {
        "clip": unit.clip,
        "video": unit.video,
        "segment": unit.segment,
        "status": "quarantined" if message else "counted",
        "reason": "unreadable" if message else "",
        "message": message,
        "frames": unit.frames,
        "pixels": pixels,
        "counted": counted,
    }


def counted_clips(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, ClassPixels], dict[str, str]]:
    """By video, what its regions hold together in all segments. A video of which a part cannot be read has
    no counts, but the reason."""
    of_segments: dict[tuple[str, int], ClassPixels] = {}
    problems: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: (row["clip"], row["segment"])):
        if row["message"]:
            problems.setdefault(row["video"], row["message"])
            continue
        place = row["video"], row["segment"]
        found = ClassPixels(np.array(row["pixels"], np.int64), np.array(row["counted"], bool))
        beside = of_segments.get(place, found)
        if len(beside.counted_T) != len(found.counted_T):  # frames were lost in one of them
            lengths = f"{len(beside.counted_T)} and {len(found.counted_T)} frames"
            problems.setdefault(row["video"], f"{row['clip']}: its regions were read as {lengths}")
            continue
        of_segments[place] = beside.beside(found) if place in of_segments else found
    pixels: dict[str, ClassPixels] = {}
    for (video, _), found in of_segments.items():
        pixels[video] = pixels[video].then(found) if video in pixels else found
    return pixels, problems
