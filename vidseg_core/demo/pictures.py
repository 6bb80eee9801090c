"""What the demo shows: a sheet of frames, one row per scheduler, and a video of one scene beside its masks.

Frames are those farthest from the keys of all schedulers, over the whole scene: nobody picked the good ones.
Masks are drawn on frames of twice the size, since the scenes are small.

Legend: H, W native size of the scene; 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.config.catalogue import EVERY
from vidseg_core.datasets.scene_files import SceneClip, read_labels
from vidseg_core.demo.measure import Score, clip_rows, labels_of, video_id_of
from vidseg_core.drawing import Painter, export_overlay
from vidseg_core.metrics import far_from_keys
from vidseg_core.pipeline.source_frames import source_frames
from vidseg_core.report import SheetRow, contact_sheet, save_png
from vidseg_core.store import Run

COLUMNS = 6
ENLARGE = 2
PAINTER = Painter(SCENE_CLASSES, opacity=0.65)
"""Strong, since the shapes have strong colours of their own."""


def clip_frames(clip: SceneClip) -> Iterator[tuple[int, np.ndarray]]:
    """(number, frame_HW3) of the clip as the job decodes it; a frame is valid until the next is asked for."""
    return source_frames(str(clip.video), max(clip.config.height, clip.config.width))


def _large_frames(clip: SceneClip) -> Iterator[tuple[int, np.ndarray]]:
    """The same, for drawing on."""
    for number, frame_HW3 in clip_frames(clip):
        yield number, cv2.resize(frame_HW3, None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_LINEAR)


def write_video(path: Path, run: Run, clip: SceneClip) -> int:
    """The frames of ``clip`` beside the same with ``run``'s masks, key frames marked; how many frames."""
    return export_overlay(
        run,
        video_id_of(run, clip),
        _large_frames(clip),
        path,
        PAINTER,
        layout="side",
        fps=float(clip.config.fps),
    )


def write_sheet(path: Path, clip: SceneClip, runs: Mapping[str, tuple[Run, Score]]) -> None:
    """Rows: the frames, the truth, and each run, captioned with its agreement with the net on every frame."""
    keys = [[row["is_key"] for row in clip_rows(run, clip)] for run, _ in runs.values()]
    saving = [is_key_T for is_key_T in keys if not all(is_key_T)] or keys
    numbers = far_from_keys(saving, COLUMNS)
    frames = {n: frame_HW3 for n, frame_HW3 in _large_frames(clip) if n in numbers}
    _, reference = runs[EVERY]
    truth = [PAINTER.over(frames[n], read_labels(clip.labels, n)) for n in numbers]
    rows = [
        SheetRow(title="frame", pictures=[frames[n] for n in numbers]),
        SheetRow(title="truth", pictures=truth),
        *(_row(name, run, score, reference, clip, frames) for name, (run, score) in runs.items()),
    ]
    save_png(path, contact_sheet(rows, [f"frame {n}" for n in numbers], PAINTER))


def _row(
    name: str,
    run: Run,
    score: Score,
    reference: Score,
    clip: SceneClip,
    frames: Mapping[int, np.ndarray],
) -> SheetRow:
    shown = [row for row in clip_rows(run, clip) if row["frame_index"] in frames]
    numbers: Sequence[int] = [row["frame_index"] for row in shown]
    agreement_T = score.agreement[clip.name]
    words = [*name.split("_"), f"AKI {score.aki:.1f}", f"{score.speed(reference):.1f} x as fast"]
    return SheetRow(
        title="\n".join(words),
        pictures=[PAINTER.over(frames[n], labels_of(row)) for n, row in zip(numbers, shown, strict=True)],
        keys=[row["is_key"] for row in shown],
        captions=[f"{100 * agreement_T[n]:.1f} %" for n in numbers],
    )
