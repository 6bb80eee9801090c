"""What the parts of `benchmarks.regions` share: clips at a size, scores, and quality at a share of pixels.

Legend: H, W size of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from benchmarks.two_sided import VOID, Clip, face_clips, folder_clips
from vidseg_core.datasets.open import open_dataset

ORACLE_SIZE, NET_SIZE = 256, 512
"""Longest side of frames, pixels."""
SHARES = (0.025, 0.04, 0.10)
Row = dict[str, Any]
Point = tuple[float, float]
"""Share of key pixels, and what it is worth."""
Schedules = Sequence[Sequence[np.ndarray]]
"""Of each: the keys of every region."""


class OnCut(Protocol):
    """A clip cut by a grid, on which schedules are scored."""

    def share(self, keys: Sequence[np.ndarray]) -> float: ...
    def worth(self, keys: Sequence[np.ndarray]) -> float: ...


def confusion_of(mask_HW: np.ndarray, labels_HW: np.ndarray, size: int) -> np.ndarray:
    known = labels_HW != VOID
    pairs = labels_HW[known].astype(np.int64) * size + mask_HW[known]
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def score(confusion: np.ndarray) -> float:
    """Mean IoU of the classes that occur in the labels."""
    both, said, true = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    occurs = true > 0
    return float((both[occurs] / (said + true - both)[occurs]).mean())


def at_share(points: Sequence[Point], share: float) -> float:
    """Quality at a share, between the nearest points on both sides of it; that of the largest if all are
    below. NaN: no schedule has so few keys."""
    below = max((point for point in points if point[0] <= share), default=None)
    above = min((point for point in points if point[0] > share), default=None)
    if below is None or above is None:
        return below[1] if below else math.nan
    weight = (share - below[0]) / (above[0] - below[0])
    return (1 - weight) * below[1] + weight * above[1]


def around(cut: OnCut, schedules: Schedules, share: float) -> list[Point]:
    """What the two schedules next to the share are worth."""
    shares = [cut.share(keys) for keys in schedules]
    below = [place for place, found in enumerate(shares) if found <= share]
    above = [place for place, found in enumerate(shares) if found > share]
    chosen = [max(below, key=lambda place: shares[place])] if below else []
    chosen += [min(above, key=lambda place: shares[place])] if above else []
    return [(shares[place], cut.worth(schedules[place])) for place in chosen]


def sized(clip: Clip, longest: int, most: int | None) -> Clip:
    """The clip at another size, sides a multiple of 8, its first frames."""
    height, width = clip.labels[0].shape
    scale = longest / max(height, width)
    size = max(8, round(width * scale / 8) * 8), max(8, round(height * scale / 8) * 8)
    shrunk = partial(cv2.resize, dsize=size, interpolation=cv2.INTER_AREA)
    nearest = partial(cv2.resize, dsize=size, interpolation=cv2.INTER_NEAREST)
    return Clip(
        name=clip.name,
        classes=clip.classes,
        frames=[shrunk(frame_HW3) for frame_HW3 in clip.frames[:most]],
        labels=[nearest(labels_HW) for labels_HW in clip.labels[:most]],
    )


def scene_clips(frames: int) -> Iterator[Clip]:
    """Drawn scenes, what tiny-scenes has learned from, of seeds that it has not seen."""
    dataset = open_dataset(f"scenes:videos=3,frames={frames},height=288,width=512,seed=900")
    records = [dataset.read(item) for item in dataset.items("all")]
    for name in sorted({record.video_id for record in records}):
        mine = [record for record in records if record.video_id == name]
        labels = [record.labels_HW for record in mine if record.labels_HW is not None]
        yield Clip(
            name=name, classes=len(dataset.class_names), frames=[r.frame_HW3 for r in mine], labels=labels
        )


def clips_of(root: Path | None, names: Sequence[str], scenes: int) -> Iterator[Clip]:
    """`scenes`: of drawn ones so many frames instead; 0: the real ones."""
    if root is None or scenes:
        yield from (clip for clip in scene_clips(scenes or 73) if not names or clip.name in names)
        return
    for source in (face_clips, folder_clips):
        yield from source(root, names)


def clips_by_kind(
    root: Path | None, names: Sequence[str], scenes: int, most: int | None
) -> dict[str, list[Clip]]:
    """The clips of these names, or all, as small as flow is estimated: drawn scenes of so many frames, and
    the first frames of real ones; kinds without any are left out."""
    drawn = (clip for clip in scene_clips(scenes) if not names or clip.name in names)
    kinds = {"scenes": [sized(clip, ORACLE_SIZE, most) for clip in drawn]}
    if root is not None:
        for kind, source in (("faces", face_clips), ("outdoor", folder_clips)):
            for clip in source(root, names):
                where = "street" if kind == "outdoor" and clip.classes > 2 else kind
                kinds.setdefault(where, []).append(sized(clip, ORACLE_SIZE, most))
    return {kind: clips for kind, clips in kinds.items() if clips}
