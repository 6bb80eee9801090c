"""``--preview``: what a run has made, to be looked at as soon as it is finished.

An overlay video and a sheet of frames of the first videos, below ``preview/`` in the output, where no reader
of the run looks. Each is put there in one step; the same command again replaces them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from vidseg_core.config.words import count
from vidseg_core.drawing import Painter
from vidseg_core.export.clip import write_clip
from vidseg_core.export.sources import Sources
from vidseg_core.inspection.pick import COLUMNS, telling
from vidseg_core.inspection.sheet import frame_sheet
from vidseg_core.kit.progress import Reporter
from vidseg_core.media import MediaError
from vidseg_core.report.overlay import jpeg
from vidseg_core.store import Run, open_run
from vidseg_core.store.keys import preview_key

MOST_VIDEOS = 3
MOST_S = 60.0
"""Seconds of a video in its overlay; many frames are shown of one that does not say how long it is."""
MOST_FRAMES = 1800
SHEET_FRAMES = 12
SIZE = 960
"""Longest side of an overlay, pixels."""


def write_preview(output: str, report: Reporter) -> None:
    """Overlay and sheet of the first videos of a finished run, and what they are called."""
    run = open_run(output)
    videos = list(islice(_with_frames(run), MOST_VIDEOS + 1))
    if not videos:
        report.say("no preview: none of the videos has a frame")
    painter = Painter.of(run)
    for video in videos[:MOST_VIDEOS]:
        try:
            with report.phase("making the preview"):
                _show(run, video, painter, report)
        except MediaError as problem:
            report.say(f"no preview of {video['video_id']}: {problem}", video_id=video["video_id"])
    if len(videos) > MOST_VIDEOS:
        report.say(f"these are the first {MOST_VIDEOS} videos; vidseg export --format overlay shows any")


def _with_frames(run: Run) -> Iterator[Mapping[str, Any]]:
    for batch in run.video_batches():
        yield from (row for row in batch.to_pylist() if row["decoded_frames"])


def _show(run: Run, video: Mapping[str, Any], painter: Painter, report: Reporter) -> None:
    video_id = video["video_id"]
    clip, sheet = preview_key(video_id, "mp4"), preview_key(video_id, "jpg")
    with tempfile.TemporaryDirectory(prefix="vidseg-preview-") as scratch:
        path = Path(scratch) / f"{video_id}.mp4"
        shown = write_clip(run, video, path, painter, report, size=SIZE, most=_most_frames(video))
        run.store.put(clip, path.read_bytes())
    sources = Sources(run)
    try:
        rows = telling(list(run.rows(video_id, (*COLUMNS, *painter.columns))), SHEET_FRAMES)
        run.store.put(sheet, jpeg(frame_sheet(run, sources, painter, video_id, rows), quality=90))
    finally:
        sources.close()
    part = "" if shown >= video["decoded_frames"] else ", the first ones"
    for key, what in (
        (clip, f"{count(shown, 'frame')} with masks{part}"),
        (sheet, f"sheet of {count(len(rows), 'frame')}"),
    ):
        report.say(f"preview: {run.path}/{key} ({what})", preview=f"{run.path}/{key}", video_id=video_id)


def _most_frames(video: Mapping[str, Any]) -> int:
    seconds, frames = video["duration_s"], video["decoded_frames"]
    if not seconds or seconds <= MOST_S:
        return min(frames, MOST_FRAMES) if not seconds else frames
    return max(1, min(frames, MOST_FRAMES, round(MOST_S * frames / seconds)))
