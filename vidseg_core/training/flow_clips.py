"""Clips in memory, and the (current, key) pairs that training and scoring draw from them.

Model: a clip is its frames at one small size, with labels or without. A pair is two frames of one clip at a
gap, cut out at the same place. Invariant: a pair depends on the clips and the random generator alone.

Legend: T frames, H, W size of a clip, h, w size of a crop; 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import cv2
import numpy as np
from numpy.random import Generator

from vidseg_core.datasets.records import IGNORE, DatasetError, FrameDataset, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowClip:
    """One clip, or pictures that belong together without being one (`moves=False`)."""

    name: str
    frames_THW3: np.ndarray
    """uint8."""
    labels_THW: np.ndarray | None = None
    """uint8 class ids or `IGNORE`."""
    moves: bool = True
    """False: neighbours are too far apart in time for flow; the pictures serve as textures only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPair:
    """Two frames of one clip, cut out at the same place."""

    clip: str
    current: int
    key: int
    current_hw3: np.ndarray
    key_hw3: np.ndarray
    labels_hw: np.ndarray
    """Labels of the current frame; `IGNORE` everywhere if there are none."""
    key_labels_hw: np.ndarray

    @property
    def ids(self) -> str:
        """The pair in words."""
        return f"{self.clip} frames {self.current} <- {self.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCut:
    """Frames of one clip, cut out at the same place: of any number, in the order asked for."""

    clip: str
    numbers: tuple[int, ...]
    frames_Thw3: list[np.ndarray]
    labels_Thw: list[np.ndarray]
    """`IGNORE` everywhere if there are none."""

    @property
    def ids(self) -> str:
        """The frames in words."""
        return f"{self.clip} frames {' <- '.join(map(str, self.numbers))}"


def make_clip(
    name: str, records: Iterable[Record], size: int, *, moves: bool = True, partly: bool = False
) -> FlowClip:
    """A clip from frames in order, shrunk to `size` pixels on the longest side.

    It has labels if all frames have some; with `partly`, if any has.
    """
    frames, labels, has_labels = [], [], []
    for record in records:
        height, width = record.frame_HW3.shape[:2]
        scale = min(1.0, size / max(height, width))
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
        frames.append(cv2.resize(record.frame_HW3, shape, interpolation=cv2.INTER_AREA))
        known_HW = record.labels_HW
        labels.append(
            np.full(shape[::-1], IGNORE, np.uint8)
            if known_HW is None
            else cv2.resize(known_HW, shape, interpolation=cv2.INTER_NEAREST)
        )
        has_labels.append(known_HW is not None)
    if not frames:
        raise DatasetError(f"clip {name} has no frames")
    return FlowClip(
        name=name,
        frames_THW3=np.stack(frames),
        labels_THW=np.stack(labels) if (any if partly else all)(has_labels) else None,
        moves=moves and len(frames) > 1,
    )


def dataset_clips(
    dataset: FrameDataset, split: str, size: int, max_frames: int | None = None, *, partly: bool = False
) -> Iterator[FlowClip]:
    """The clips of one split of a data set, each from its start; `partly` as for `make_clip`."""
    for video, items in groupby(dataset.items(split), key=lambda item: item.video_id):
        yield make_clip(video, map(dataset.read, islice(items, max_frames)), size, partly=partly)


def draw_pair(
    clips: Sequence[FlowClip], random: Generator, *, height: int, width: int, max_gap: int
) -> ClipPair:
    """`pair_cut` as a pair."""
    cut = pair_cut(clips, random, height=height, width=width, max_gap=max_gap)
    return ClipPair(
        clip=cut.clip,
        current=cut.numbers[0],
        key=cut.numbers[1],
        current_hw3=cut.frames_Thw3[0],
        key_hw3=cut.frames_Thw3[1],
        labels_hw=cut.labels_Thw[0],
        key_labels_hw=cut.labels_Thw[1],
    )


def pair_cut(
    clips: Sequence[FlowClip], random: Generator, *, height: int, width: int, max_gap: int
) -> ClipCut:
    """(frame, key) from a random clip, gap 1 to `max_gap` in either direction, randomly cut and mirrored."""
    clip = clips[int(random.integers(len(clips)))]
    gap = int(random.integers(1, min(max_gap, len(clip.frames_THW3) - 1) + 1))
    first = int(random.integers(len(clip.frames_THW3) - gap))
    numbers = (first, first + gap) if random.random() < 0.5 else (first + gap, first)
    return cut_out(clip, numbers, random, height=height, width=width)


def cut_out(clip: FlowClip, numbers: Sequence[int], random: Generator, *, height: int, width: int) -> ClipCut:
    """These frames at one random scale, cut and perhaps mirrored in one way."""
    rows, columns = clip.frames_THW3.shape[1:3]
    scale = max(height / rows, width / columns, random.uniform(0.6, 1.3))
    cut_h, cut_w = min(rows, round(height / scale)), min(columns, round(width / scale))
    top, left = int(random.integers(rows - cut_h + 1)), int(random.integers(columns - cut_w + 1))
    mirror = random.random() < 0.5

    def cut(picture: np.ndarray, interpolation: int) -> np.ndarray:
        window = picture[top : top + cut_h, left : left + cut_w]
        grown = cv2.resize(window, (width, height), interpolation=interpolation)
        return np.ascontiguousarray(grown[:, ::-1]) if mirror else grown

    labels = clip.labels_THW
    none_hw = np.full((height, width), IGNORE, np.uint8)
    return ClipCut(
        clip=clip.name,
        numbers=tuple(numbers),
        frames_Thw3=[cut(clip.frames_THW3[n], cv2.INTER_LINEAR) for n in numbers],
        labels_Thw=[none_hw if labels is None else cut(labels[n], cv2.INTER_NEAREST) for n in numbers],
    )
