"""The part `agreement`: a net on crops, put together, beside itself on the whole frame (DVSNet Fig. 10).

By grid, overlap and what is seen around a crop (`AROUND`): mean IoU over the classes that occur, pixels of
all crops in frames, what all crops cost in calls of the frame (process time, interleaved, medians). With
weights that were learned on crops (`train-segmenter --regions.grid`) the net has these on crops, and its own
on the frame; a row more (1x1) says how far it is itself on whole frames still.

Legend: H, W size of a frame; h, w that of a crop's inner part.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.regions.common import Row, confusion_of, score
from benchmarks.two_sided import Clip
from vidseg_core.config.regions import Crop, RegionsConfig
from vidseg_core.engine.context import place_of
from vidseg_core.models import build_segmenter
from vidseg_core.models.split import SplitSegmenter
from vidseg_core.models.surroundings import Surroundings, surrounding

OVERLAPS = (0, 16, 32, 64, 128)
AROUND = ("crop", "aligned", "half", "remembered")
"""Ways of seeing what is around a crop; see `OnCrops`."""


class OnCrops:
    """A net on the crops of a frame, each by itself, with one way of seeing what is around them."""

    def __init__(
        self, net: SplitSegmenter, regions: RegionsConfig, way: str, weights: str | None = None
    ) -> None:
        """`way`: `crop` and `aligned` (with that `align`): the crop; `half`: beside it the frame at half its
        size, whose scores count more towards the crop's borders; `remembered`: what layers saw around it.
        `weights`: the net's file, None: its own."""
        self._net, self._regions, self._way = net, regions, way
        self._around = None
        if way == "remembered":
            own = surrounding(build_segmenter(net.name, weights=weights), regions.align)
            self._net = own
            self._around = Surroundings(
                own, lambda size: [place_of(crop) for crop in regions.crops(size)], regions.overlap
            )

    def remember(self, frame_HW3: np.ndarray) -> Any:
        """What layers keep of the whole frame."""
        if self._around is None:
            return None
        height, width = frame_HW3.shape[:2]
        return self._around.run((0, height, 0, width), (height, width), {}, lambda: self._scores(frame_HW3))[
            1
        ]

    def labels(self, frame_HW3: np.ndarray, kept: Any) -> np.ndarray:
        """The mask of the frame, put together."""
        height, width = frame_HW3.shape[:2]
        labels_HW = np.empty((height, width), np.uint8)
        half_CHW = self._half(frame_HW3) if self._way == "half" else None
        for crop in self._regions.crops((height, width)):
            shown = np.ascontiguousarray(frame_HW3[crop.where])
            if self._around is None:
                scores = self._scores(shown)
            else:
                scores, _ = self._around.run(
                    place_of(crop), (height, width), kept, lambda shown=shown: self._scores(shown)
                )
            if half_CHW is not None:
                own_hw = own_share(crop, (height, width))
                scores = own_hw * scores + (1 - own_hw) * half_CHW[:, *crop.where]
            labels_HW[crop.inner_where] = scores[:, *crop.inner_in_crop].argmax(0).numpy()
        return labels_HW

    def _scores(self, frame_HW3: np.ndarray) -> torch.Tensor:
        frame_13HW = torch.from_numpy(frame_HW3).permute(2, 0, 1)[None].float() / 255.0
        return self._net.head(self._net.features(frame_13HW))[0]

    def _half(self, frame_HW3: np.ndarray) -> torch.Tensor:
        height, width = frame_HW3.shape[:2]
        size = max(8, round(width / 16) * 8), max(8, round(height / 16) * 8)
        scores = self._scores(cv2.resize(frame_HW3, size, interpolation=cv2.INTER_AREA))
        return torch.nn.functional.interpolate(scores[None], (height, width), mode="bilinear")[0]


def own_share(crop: Crop, size: tuple[int, int]) -> torch.Tensor:
    """(h, w): how much the crop's own scores count, 1 from 32 pixels off its inner borders on."""
    rows, columns = (torch.arange(side) + 0.5 for side in crop.shape)
    far = [torch.full((side,), 32.0) for side in crop.shape]
    far[0] = torch.minimum(far[0], rows) if crop.top else far[0]
    far[0] = torch.minimum(far[0], crop.shape[0] - rows) if crop.bottom < size[0] else far[0]
    far[1] = torch.minimum(far[1], columns) if crop.left else far[1]
    far[1] = torch.minimum(far[1], crop.shape[1] - columns) if crop.right < size[1] else far[1]
    return torch.minimum(far[0][:, None], far[1][None]) / 32.0


@torch.inference_mode()
def agreement(
    clip: Clip,
    net_name: str,
    grids: Sequence[str],
    overlaps: Sequence[int] = OVERLAPS,
    around: Sequence[str] = AROUND,
    weights: str | None = None,
) -> Iterator[Row]:
    """Every twelfth frame but the first; around a crop is seen what the frame twelve before it had there.
    `around`: ways of `AROUND`. `weights`: a file that the net has on crops."""
    net, frames = build_segmenter(net_name, weights=weights), build_segmenter(net_name)
    assert isinstance(net, SplitSegmenter) and isinstance(frames, SplitSegmenter)
    size = clip.frames[0].shape[:2]
    classes, align = len(net.class_names), net.net.multiple
    whole, named = OnCrops(frames, RegionsConfig(), "crop"), {"clip": clip.name, "net": net_name}
    if weights is not None:
        here, counts_CC = OnCrops(net, RegionsConfig(), "crop"), np.zeros((classes, classes), np.int64)
        for frame_HW3 in clip.frames[12::12]:
            counts_CC += confusion_of(here.labels(frame_HW3, None), whole.labels(frame_HW3, None), classes)
        yield {**named, "grid": "1x1", "overlap": 0, "keys": "frame", "pixels": 1.0, "miou": score(counts_CC)}
    for grid, overlap in product(grids, overlaps):
        if RegionsConfig(grid=grid, overlap=overlap).problem((size[0], size[1])):
            continue
        ways = {
            way: RegionsConfig(grid=grid, overlap=overlap, align=1 if way in ("crop", "half") else align)
            for way in around
        }
        nets = {way: OnCrops(net, regions, way, weights) for way, regions in ways.items()}
        confusions, seconds = {way: np.zeros((classes, classes), np.int64) for way in ways}, dict[str, list]()
        for before, frame_HW3 in pairwise(clip.frames[::12]):
            labels_HW = _timed(seconds, "whole", whole, frame_HW3, None)
            for way, on_crops in nets.items():
                kept = on_crops.remember(before)
                found_HW = _timed(seconds, way, on_crops, frame_HW3, kept)
                confusions[way] += confusion_of(found_HW, labels_HW, classes)
        for way, regions in ways.items():
            pixels = sum(crop.pixels for crop in regions.crops((size[0], size[1]))) / (size[0] * size[1])
            yield {
                **named, "grid": grid, "overlap": overlap, "keys": way,
                "pixels": pixels, "miou": score(confusions[way]),
                "cost": float(np.median(seconds[way]) / np.median(seconds["whole"])),
                "ms": 1e3 * float(np.median(seconds[way])),
            }  # fmt: skip


def _timed(seconds: dict[str, list], way: str, net: OnCrops, frame_HW3: np.ndarray, kept: Any) -> np.ndarray:
    started = time.process_time()
    labels_HW = net.labels(frame_HW3, kept)
    seconds.setdefault(way, []).append(time.process_time() - started)
    return labels_HW
