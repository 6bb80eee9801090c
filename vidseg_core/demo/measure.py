"""What the demo measures of a finished run: against the exact truth, and against the net on every frame.

Invariant: counts are summed over all frames of all scenes before any ratio is taken.

Legend: H, W native size of the scenes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.datasets.scene_files import SceneClip, read_labels
from vidseg_core.metrics import ConfusionMatrix, join, key_statistics, measure_fidelity
from vidseg_core.store import Run, decode_mask

_COLUMNS = ("frame_index", "is_key", "height", "width", "mask")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One run of the demo."""

    frames: int
    keys: int
    aki: float
    calls_saved: float
    """Share of frames on which the net did not run, 0..1."""
    truth_miou: float
    """mIoU against the exact truth."""
    fidelity_miou: float
    """mIoU against the same net on every frame."""
    pixel_agreement: float
    """Share of pixels that are the same as those of the net on every frame."""
    fps: float
    """Frames per second of work, decoding and engine, of a core (or a GPU, where that works longer); start-up
    does not count."""
    agreement: Mapping[str, np.ndarray]
    """By clip name: `pixel_agreement` of each frame."""

    def speed(self, reference: Score) -> float:
        """How many times as fast as another run; NaN where that has no speed."""
        return self.fps / reference.fps if reference.fps else float("nan")


def measure(run: Run, reference: Run, clips: Sequence[SceneClip]) -> Score:
    """Compare ``run`` with the truth of ``clips`` and with ``reference``, the net on every frame."""
    truth = ConfusionMatrix(len(SCENE_CLASSES))
    schedules = []
    for clip in clips:
        is_key = []
        for row in clip_rows(run, clip):
            is_key.append(row["is_key"])
            truth.update(labels_of(row), read_labels(clip.labels, row["frame_index"]))
        schedules.append(key_statistics(is_key))
    keys = join(schedules)
    fidelity = measure_fidelity(_stream(run, clips), _stream(reference, clips), len(SCENE_CLASSES))
    videos = run.videos().to_pylist()
    seconds = sum(max(video["cpu_s"], video["gpu_s"]) for video in videos)
    return Score(
        frames=keys.frames,
        keys=keys.keys,
        aki=keys.aki,
        calls_saved=keys.calls_saved,
        truth_miou=truth.mean_iou(),
        fidelity_miou=fidelity.mean_iou,
        pixel_agreement=fidelity.pixel_agreement,
        fps=keys.frames / seconds if seconds else 0.0,
        agreement=_by_clip(fidelity.frame_agreement, clips, [part.frames for part in schedules]),
    )


def clip_rows(run: Run, clip: SceneClip) -> Iterator[dict[str, Any]]:
    """The rows of a clip's frames, in order."""
    return run.rows(video_id_of(run, clip), _COLUMNS)


def video_id_of(run: Run, clip: SceneClip) -> str:
    """The id under which ``run`` knows the clip; KeyError if it does not."""
    ids = {row["uri"]: row["video_id"] for row in run.videos().to_pylist()}
    return ids[os.path.realpath(clip.video)]


def labels_of(row: Mapping[str, Any]) -> np.ndarray:
    """uint8 labels_HW of a row."""
    return decode_mask(row["mask"], row["height"], row["width"])


def _stream(run: Run, clips: Sequence[SceneClip]) -> Iterator[np.ndarray]:
    return (labels_of(row) for clip in clips for row in clip_rows(run, clip))


def _by_clip(values: np.ndarray, clips: Sequence[SceneClip], lengths: Sequence[int]) -> dict[str, np.ndarray]:
    pieces = np.split(values, np.cumsum(lengths)[:-1])
    return {clip.name: piece for clip, piece in zip(clips, pieces, strict=True)}
