"""Small clips in memory, those to learn from and those left out, and what masks of them are worth.

Shape suffixes: T frames, H, W size of a clip, 3 = RGB.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from benchmarks.corpus import data_dir
from vidseg_core.classes import SCENE_CLASSES
from vidseg_core.datasets.open import open_dataset
from vidseg_core.engine import Engine, FrameInput, FrameResult, SegmentState
from vidseg_core.metrics.confusion import ConfusionMatrix
from vidseg_core.metrics.consistency import PairFlow, TemporalConsistency, pooled_tc
from vidseg_core.propagation.flow import DisFlow
from vidseg_core.training.flow_clips import FlowClip, dataset_clips
from vidseg_core.training.match_clips import drawn_clip

SETS = ("scenes", "faces", "davis")
STREET = "street"
"""CamVid's clip at 15 Hz, for those that ask for it: its first half teaches, its second measures."""
FOLDERS = {"faces": "face", "davis": "davis2016", STREET: "camvid"}
SPECS = {"faces": "face", "davis": "davis", STREET: "camvid"}
STREET_CLIP, STREET_FRAMES = "clip_0016E5_15hz", 61
SIDE, FRAMES = 128, 32
"""Longest side in pixels, and frames of a clip at most."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """Clips of one kind."""

    name: str
    class_names: tuple[str, ...]
    train: Sequence[FlowClip]
    test: Sequence[FlowClip]
    flows: dict[str, list[PairFlow]] = field(default_factory=dict, repr=False, compare=False)
    """Of test clips: those between neighbours, once they were needed."""

    def flows_of(self, clip: FlowClip) -> list[PairFlow]:
        """DIS between neighbours, at the clip's size."""
        if clip.name not in self.flows:
            dis = DisFlow(chained=False)
            grays = [cv2.cvtColor(frame_HW3, cv2.COLOR_RGB2GRAY) for frame_HW3 in clip.frames_THW3]
            pairs = zip(grays[:-1], grays[1:], strict=True)
            self.flows[clip.name] = [
                PairFlow(*dis.flow([now, before], [before, now])) for before, now in pairs
            ]
        return self.flows[clip.name]


def materials(names: Sequence[str], data: str | None, frames: int = FRAMES) -> Iterable[Material]:
    """Those of `SETS` and `STREET` that are at hand, one after the other."""
    root = data_dir(data)
    for name in names:
        if name == "scenes":
            clips = [drawn_clip(4000 + number, frames, (96, SIDE)) for number in range(12)]
            yield divided(name, SCENE_CLASSES, clips)
        elif root is not None and (root / FOLDERS[name]).is_dir():
            dataset = open_dataset(f"{SPECS[name]}:{root / FOLDERS[name]}")
            if name == STREET:
                clips = list(dataset_clips(dataset, STREET_CLIP, SIDE, STREET_FRAMES))
                yield halved(name, dataset.class_names, clips)
                continue
            clips = list(dataset_clips(dataset, "all", SIDE, frames))
            seen = [clip for clip in clips if clip.labels_THW is not None and (clip.labels_THW != 255).any()]
            yield divided(name, dataset.class_names, seen)


def divided(name: str, class_names: Sequence[str], clips: Sequence[FlowClip]) -> Material:
    """Every third clip is left out."""
    train = [clip for place, clip in enumerate(clips) if place % 3 != 1]
    test = [clip for place, clip in enumerate(clips) if place % 3 == 1]
    return Material(name=name, class_names=tuple(class_names), train=train, test=test)


def halved(name: str, class_names: Sequence[str], clips: Sequence[FlowClip]) -> Material:
    """The second half of each clip, in time, is left out."""
    middles = [len(clip.frames_THW3) // 2 for clip in clips]
    train = [_part(clip, slice(0, middle)) for clip, middle in zip(clips, middles, strict=True)]
    test = [_part(clip, slice(middle, None)) for clip, middle in zip(clips, middles, strict=True)]
    return Material(name=name, class_names=tuple(class_names), train=train, test=test)


def _part(clip: FlowClip, which: slice) -> FlowClip:
    assert clip.labels_THW is not None
    return replace(clip, frames_THW3=clip.frames_THW3[which], labels_THW=clip.labels_THW[which])


def through(engine: Engine, clip: FlowClip) -> Iterator[FrameResult]:
    """Rows of the clip, in order."""
    state = SegmentState.new(0, clip.name)
    for number, frame_HW3 in enumerate(clip.frames_THW3):
        frame = FrameInput(frame_index=number, pts_s=0.0, is_corrupt=False, frame_HW3=frame_HW3)
        yield from engine.step([state], [frame])[0]
    yield from engine.finish([state])[0]


class Marks:
    """What masks of a material's left-out clips are worth: mIoU, TC by ETC Eq. 5 and 6 and of all clips at
    once, pop."""

    def __init__(self, material: Material) -> None:
        self._flows_of, self._classes = material.flows_of, len(material.class_names)
        self._matrix = ConfusionMatrix(self._classes)
        self._tcs: list[TemporalConsistency] = []

    def add(self, clip: FlowClip, masks: Sequence[np.ndarray], keys: Sequence[bool] = ()) -> None:
        """All masks_HW of one clip; `keys`: which of them are the net's own."""
        assert clip.labels_THW is not None
        for mask_HW, labels_HW in zip(masks, clip.labels_THW, strict=True):
            self._matrix.update(mask_HW, labels_HW)
        tc, at_keys = TemporalConsistency(self._classes), keys or [False] * len(masks)
        pairs = zip(masks[:-1], masks[1:], at_keys[1:], self._flows_of(clip), strict=True)
        for before_HW, now_HW, at_key, flow in pairs:
            tc.update(before_HW, now_HW, flow, at_key=at_key)
        self._tcs.append(tc)

    def percent(self) -> dict[str, float]:
        """`miou`, `tc`, `tc_pooled`, `tc_visible`, and `pop`, NaN where no clip has both kinds of pairs."""
        pops = [tc.pop for tc in self._tcs if not math.isnan(tc.pop)]
        return {
            "miou": 100 * self._matrix.mean_iou(),
            "tc": 100 * statistics.mean(tc.tc for tc in self._tcs),
            "tc_pooled": 100 * float(np.nanmean(pooled_tc([tc.class_overlap for tc in self._tcs]))),
            "tc_visible": 100 * statistics.mean(tc.visible.tc for tc in self._tcs),
            "pop": 100 * statistics.mean(pops) if pops else math.nan,
        }
