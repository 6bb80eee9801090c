"""An overlay of one video of a run, its frames read again from the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidseg_core.kit.progress import Reporter
from vidseg_core.pipeline.source_frames import source_frames
from vidseg_core.store import Run
from vidseg_core.store.export import Painter, export_overlay


def write_clip(
    run: Run,
    video: Mapping[str, Any],
    path: Path,
    painter: Painter,
    report: Reporter,
    *,
    size: int,
    first: int = 0,
    most: int | None = None,
    layout: Literal["blend", "side"] = "blend",
    legend: bool = True,
    key_marks: bool = True,
    quality: int = 20,
) -> int:
    """Write the frames of a video (a row of ``videos/``) with their masks as mp4; how many frames.

    `size`: longest side, pixels. `first`, `most`: the first frame, and how many at most. `MediaError` if the
    source cannot be read.
    """
    total = max(0, video["decoded_frames"] - first)
    total = total if most is None else min(most, total)

    def show(written: int) -> None:
        fields = {"video_id": video["video_id"], "written": written, "of": total}
        report.show(f"{path.name}: {written:,}/{total:,} frames", fields)

    frames = source_frames(video["uri"], size, video["stream"])
    return export_overlay(
        run,
        video["video_id"],
        _between(frames, first, most),
        path,
        painter,
        layout=layout,
        legend=legend,
        key_marks=key_marks,
        quality=quality,
        on_frame=show,
    )


def _between(
    frames: Iterator[tuple[int, np.ndarray]], first: int, most: int | None
) -> Iterator[tuple[int, np.ndarray]]:
    for number, frame_HW3 in frames:
        if most is not None and number >= first + most:
            return
        if number >= first:
            yield number, frame_HW3
