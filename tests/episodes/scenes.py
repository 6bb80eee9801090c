"""Small moving clips with labels, and an engine that runs a given schedule on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tests.engine.toy import Named, inputs, moving_clip, truth
from vidseg_core.datasets.records import Record
from vidseg_core.engine import Engine, SegmentState
from vidseg_core.propagation import build_propagator
from vidseg_core.scheduling.deviation import Deviation

CLASSES = 3


def records(frames: int, *, seed: int = 0, void: bool = True, unlabelled: Sequence[int] = ()) -> list[Record]:
    """A moving clip; a corner is void, some frames have no labels at all."""
    made = []
    for number, frame_HW3 in enumerate(moving_clip(frames, seed=seed)):
        labels_HW: np.ndarray | None = truth(frame_HW3)
        if void and labels_HW is not None:
            labels_HW[:9, :11] = 255
        if number in unlabelled:
            labels_HW = None
        made.append(Record(video_id="clip", frame_index=number, frame_HW3=frame_HW3, labels_HW=labels_HW))
    return made


class GivenKeys:
    """Key at given ordinals."""

    needs_flow, avoids_corrupt, threshold = False, False, 0.5

    def __init__(self, keys: Sequence[int]) -> None:
        self._keys = set(keys)

    def score(self, deviation: Deviation) -> float:
        return float(deviation.ordinal in self._keys)


class LabelsNet(Named):
    """Says what the labels of the current frame say; `void` is a class more."""

    stride = 1
    class_names = ("a", "b", "c", "void")

    def __init__(self, clip: Sequence[Record]) -> None:
        self._by_frame = {record.frame_HW3.tobytes(): record.labels_HW for record in clip}

    def features(self, frames_B3HW: torch.Tensor) -> torch.Tensor:
        return frames_B3HW

    def head(self, feats: Any) -> torch.Tensor:
        pixels = (feats[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        labels_HW = self._by_frame[np.ascontiguousarray(pixels).tobytes()]
        if labels_HW is None:
            labels_HW = np.full(pixels.shape[:2], CLASSES, np.uint8)
        ids_HW = torch.from_numpy(np.where(labels_HW == 255, CLASSES, labels_HW)).long()
        return torch.nn.functional.one_hot(ids_HW, CLASSES + 1).permute(2, 0, 1)[None].float()


def engine_masks(
    clip: Sequence[Record],
    scheduler: Any,
    net: Any,
    *,
    sides: Any,
    max_interval: int,
    level: str = "labels",
    propagator: str = "flow_warp",
    **options: Any,
) -> tuple[list[np.ndarray], list[int]]:
    """The engine's masks of all frames and its keys."""
    engine = Engine(
        net,
        scheduler,
        build_propagator(propagator, level=level),
        sides=sides,
        max_interval=max_interval,
        flow_size=48,
        **options,
    )
    state = SegmentState.new(0, "clip/0")
    frames = inputs([record.frame_HW3 for record in clip], first=0)
    rows = [row for frame in frames for row in engine.step([state], [frame])[0]] + engine.finish([state])[0]
    return [row.labels_HW for row in rows], [row.frame_index for row in rows if row.is_key]
