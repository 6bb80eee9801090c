"""One record form for every labelled data set: a small item that says where a frame is, and the frame read.

Model: a data set lists `Item`s (cheap, picklable, no pixels) and reads each into a `Record`. Whatever the
publisher's files hold, labels come out as class ids `0 .. len(class_names) - 1` and `IGNORE`.

Shape suffixes: H W the frame's rows and columns, 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from vidseg_core.media import Motion

IGNORE = 255
"""Label of a pixel that counts neither in a loss nor in a metric."""

ALL = "all"
"""The split that every data set has: its other splits together."""

OnError = Literal["raise", "skip"]


class DatasetError(ValueError):
    """A data set cannot be found or read as asked; one sentence that names the file and what to do."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Where one frame of a data set is."""

    video_id: str
    """The clip it belongs to: frames of one clip never part between training and validation."""
    frame_index: int
    """In presentation order from the start of the clip."""
    image: str
    """Path of the image, or of the video."""
    label: str | None = None
    """Path of the label image, or of what else the data set makes the labels from; None: not labelled."""
    extra: Mapping[str, str | int | float] = field(default_factory=dict)
    """What else the data set needs to read it."""


@dataclass(slots=True, kw_only=True)
class Record:
    """One frame, read."""

    video_id: str
    frame_index: int
    frame_HW3: np.ndarray
    """uint8 RGB."""
    labels_HW: np.ndarray | None
    """uint8 class ids or `IGNORE`, of the frame's size; None without labels."""
    whole: tuple[int, int] | None = None
    """Of a region, (H, W) of the frame that it is cut from, whose scale its flow picture has."""
    inner: tuple[slice, slice] | None = None
    """Of a region, the part of it that is no other region's; the rest is overlap. None: all of it."""


class FrameDataset(Protocol):
    """A data set; opening it looks at directory listings only."""

    name: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class id i is `class_names[i]`; empty: there are no labels."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that are there, e.g. ("train", "val", "all")."""
        ...

    def items(self, split: str) -> Sequence[Item]:
        """All frames of a split, sorted by (video_id, frame_index); `DatasetError` for an unknown split."""
        ...

    def read(self, item: Item) -> Record:
        """Read one frame; `DatasetError` for an unreadable image, sizes that differ, labels out of range."""
        ...


def motion_of(dataset: FrameDataset, item: Item) -> Motion | None:
    """What the video of a frame says of its motion; None: nothing, or it is no video."""
    read = getattr(dataset, "motion", None)
    return None if read is None else read(item)


def iter_records(
    dataset: FrameDataset,
    split: str,
    *,
    labelled_only: bool = False,
    on_error: OnError = "raise",
    skipped: list[str] | None = None,
) -> Iterator[Record]:
    """The records of a split, clip by clip and frame by frame, which is the cheap order for videos.

    `on_error="skip"` leaves out what cannot be read and appends its message to `skipped`.
    """
    for item in dataset.items(split):
        if labelled_only and item.label is None:
            continue
        try:
            record = dataset.read(item)
        except DatasetError as error:
            if on_error == "raise":
                raise
            if skipped is not None:
                skipped.append(str(error))
            continue
        yield record
