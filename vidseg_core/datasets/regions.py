"""A data set whose clips are regions of another's: what a region is to the engine, a segment of crops.

Model: `?regions=2x2&overlap=16` makes four clips of each, `CLIP-r1` to `CLIP-r4`, row by row of the grid,
with the crops that `--regions.grid` has of frames of that size. So nets, tables, schedulers and planners can
learn from what they see in a run with regions, with one set of weights for all of them.

Invariant: a crop's frame and labels are those of the frame, cut; a frame has its working size before it is
cut (`resized`), and a crop says how large the frame is, as in the engine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vidseg_core.config.errors import ConfigError
from vidseg_core.config.regions import RegionsConfig
from vidseg_core.datasets.records import DatasetError, FrameDataset, Item, Record
from vidseg_core.datasets.wrapped import ResizedDataset, WrappedDataset
from vidseg_core.media import Motion

_REGION = "region"
"""Which region an item is, in its `extra`."""
_NAMES = {"grid": "regions", "overlap": "overlap", "align": "align"}
"""Options of a data set, by the option of `RegionsConfig`."""


def resized(dataset: FrameDataset, size: str) -> FrameDataset:
    """The data set with frames of this working size, or with the regions of such frames."""
    return dataset.at_size(size) if isinstance(dataset, RegionsDataset) else ResizedDataset(dataset, size)


def regions_of(dataset: FrameDataset) -> RegionsConfig:
    """Which regions the clips of a data set are; 1x1: whole frames."""
    found = dataset.regions if isinstance(dataset, RegionsDataset) else RegionsConfig()
    return found if found.on else RegionsConfig()


def named_regions(grid: str, overlap: str, align: str) -> RegionsConfig:
    """The regions that options of a data set name, as `--regions.grid` and so on; `""`: left out."""
    pixels = {name: text for name, text in (("overlap", overlap), ("align", align)) if text}
    for name, text in pixels.items():
        if not text.isdigit():
            raise DatasetError(f"{name}={text}: must be a whole number of pixels")
    options = {name: int(text) for name, text in pixels.items()}
    try:
        return replace(RegionsConfig(grid=grid), **options)
    except ConfigError as error:
        option = error.option.removeprefix("--regions.")
        raise DatasetError(f"{_NAMES[option]}={options.get(option, grid)}: {error.problem}") from error


def region_name(video: str, regions: RegionsConfig, number: int) -> str:
    """What the clip of a video's region is called."""
    return f"{video}-r{number + 1:0{len(str(regions.count))}}"


def video_of(clip: str, regions: RegionsConfig) -> str:
    """The video whose region a clip is; the clip itself where frames are whole."""
    return re.sub(r"-r\d+$", "", clip) if regions.on else clip


def cut_out(record: Record, regions: RegionsConfig, number: int, clip: str) -> Record:
    """The record of one region, of the clip of this name; `DatasetError` for frames that have no such
    regions."""
    height, width = record.frame_HW3.shape[:2]
    try:
        crop = regions.crops((height, width))[number]
    except ValueError as error:
        name = "regions" if str(error).startswith(regions.grid) else "overlap"
        raise DatasetError(f"{record.video_id}, frame {record.frame_index}: {name}={error}") from error
    labels_HW = record.labels_HW
    return replace(
        record,
        video_id=clip,
        whole=(height, width),
        inner=crop.inner_in_crop,
        frame_HW3=np.ascontiguousarray(record.frame_HW3[crop.where]),
        labels_HW=None if labels_HW is None else np.ascontiguousarray(labels_HW[crop.where]),
    )


class RegionsDataset(WrappedDataset):
    """The clips of a data set, cut."""

    def __init__(self, inner: FrameDataset, regions: RegionsConfig) -> None:
        super().__init__(inner)
        self._regions = regions
        self._listed: dict[str, tuple[Item, ...]] = {}

    def items(self, split: str) -> Sequence[Item]:
        if split not in self._listed:
            found = [
                replace(
                    item,
                    video_id=region_name(item.video_id, self._regions, number),
                    extra={**item.extra, _REGION: number},
                )
                for item in self.inner.items(split)
                for number in range(self._regions.count)
            ]
            self._listed[split] = tuple(sorted(found, key=lambda item: (item.video_id, item.frame_index)))
        return self._listed[split]

    def read(self, item: Item) -> Record:
        extra = dict(item.extra)
        number = int(extra.pop(_REGION))
        whole = replace(item, video_id=video_of(item.video_id, self._regions), extra=extra)
        return cut_out(self.inner.read(whole), self._regions, number, item.video_id)

    def at_size(self, size: str) -> RegionsDataset:
        """Regions of frames of this working size."""
        return RegionsDataset(ResizedDataset(self.inner, size), self._regions)

    @property
    def regions(self) -> RegionsConfig:
        """Which regions its clips are."""
        return self._regions

    def motion(self, item: Item) -> Motion | None:
        """What a stream says is of whole frames."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_listed": {}}
