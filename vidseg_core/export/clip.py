"""Overlays of videos of a run, their frames read again from the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidseg_core.config.excerpt import EXCERPT, Excerpt
from vidseg_core.datasets.of_run import Reading
from vidseg_core.drawing import Painter, export_overlay
from vidseg_core.export.take import CHOSEN_BY, Take
from vidseg_core.kit.progress import Reporter
from vidseg_core.media import MediaError
from vidseg_core.pipeline.source_frames import source_frames
from vidseg_core.store import Run
from vidseg_core.store.atomic import make_folder

ALL = range(2**62)
"""The numbers of all frames."""


def write_overlays(take: Take) -> int:
    """`VIDEO.mp4` for each video: every frame from the first chosen one to the last; how many frames."""
    options, count = take.options, 0
    painter = Painter.of(take.run, options.opacity)
    make_folder(take.out)
    for video_id in take.videos:
        chosen = _chosen_span(take, video_id)
        video = take.sources.video(video_id)
        if video is None or not chosen:
            continue
        try:
            count += write_clip(
                take.run,
                video,
                take.out / f"{video_id}.mp4",
                painter,
                take.report,
                size=options.overlay_size,
                numbers=chosen,
                layout=options.layout,
                legend=options.legend,
                key_marks=options.key_marks,
            )
        except MediaError as problem:
            take.sources.lost[video_id] = str(problem)
    return count


def _chosen_span(take: Take, video_id: str) -> range:
    """The frames from the first chosen one to the last."""
    if take.wants is None:
        return ALL
    rows = take.run.rows(video_id, CHOSEN_BY)
    numbers = [row["frame_index"] for row in rows if take.wants(video_id, row)]
    return range(numbers[0], numbers[-1] + 1) if numbers else range(0)


def write_clip(
    run: Run,
    video: Mapping[str, Any],
    path: Path,
    painter: Painter,
    report: Reporter | None = None,
    *,
    size: int,
    numbers: range = ALL,
    most: int | None = None,
    layout: Literal["blend", "side"] = "blend",
    legend: bool = True,
    key_marks: bool = True,
    quality: int = 20,
) -> int:
    """Write the frames of a video (a row of ``videos/``) with their masks as mp4; how many frames.

    `size`: longest side, pixels. `numbers`: of the frames that may be shown. `most`: how many of them.
    `MediaError` if the source cannot be read.
    """
    total = min(video["decoded_frames"], len(numbers), most or len(numbers))

    def show(written: int) -> None:
        if report is not None:
            fields = {"video_id": video["video_id"], "written": written, "of": total}
            report.show(f"{path.name}: {written:,}/{total:,} frames", fields)

    excerpt = Excerpt(**{name: video.get(name) for name in EXCERPT})
    reading = Reading.of(run)
    frames = source_frames(
        video["uri"],
        size,
        video["stream"],
        excerpt,
        as_shown=reading.as_shown,
        maps_hdr=reading.maps_hdr,
        limits=reading.limits,
    )
    return export_overlay(
        run,
        video["video_id"],
        _between(frames, numbers),
        path,
        painter,
        layout=layout,
        legend=legend,
        key_marks=key_marks,
        quality=quality,
        most=most,
        on_frame=show,
    )


def _between(frames: Iterator[tuple[int, np.ndarray]], numbers: range) -> Iterator[tuple[int, np.ndarray]]:
    for number, frame_HW3 in frames:
        if number >= numbers.stop:
            return
        if number >= numbers.start:
            yield number, frame_HW3
