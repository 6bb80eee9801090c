"""What goes into the engine and what comes out, one object per frame.

Legend: H, W working size; h, w another size; 3 = RGB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vidseg_core.media.motion import Motion


class Picture(Protocol):
    """A picture whose colours cost something; `media.Picture` is one."""

    shape: tuple[int, int]
    """(H, W), working size."""

    def rgb(self) -> np.ndarray:
        """frame_HW3 uint8 at working size."""
        ...

    def luma(self) -> tuple[np.ndarray, bool] | None:
        """luma_hw uint8 of any size and whether it has the full range (else 16..235); None: take the RGB."""
        ...


class FrameInput:
    """One decoded frame of a segment: `frame_HW3`, or a `picture` that makes it when it is asked for.

    Both are read during `Engine.step` only; what outlives the call is copied.
    """

    __slots__ = ("_frame_HW3", "_motion", "_picture", "frame_index", "is_corrupt", "pts_s", "whole")

    def __init__(
        self,
        *,
        frame_index: int,
        pts_s: float,
        is_corrupt: bool,
        frame_HW3: np.ndarray | None = None,
        picture: Picture | None = None,
        motion: Motion | None = None,
        whole: tuple[int, int] | None = None,
    ) -> None:
        """`motion`: where the picture does not bring its own; `whole`: of a crop, (H, W) of its frame."""
        if (frame_HW3 is None) == (picture is None):
            raise ValueError(f"frame {frame_index}: give frame_HW3 or a picture, one of the two")
        self.frame_index = frame_index
        """Video-wide number of the frame; strictly increasing within a segment, lost frames leave gaps."""
        self.pts_s = pts_s
        """Presentation time in seconds."""
        self.is_corrupt = is_corrupt
        """The decoder marked the frame as damaged."""
        self.whole = whole
        """Of a region, (H, W) of the frame that it is cut from, which its flow picture has the scale of."""
        self._frame_HW3, self._picture = frame_HW3, picture
        self._motion = None if motion is None else (motion,)

    @property
    def frame_HW3(self) -> np.ndarray:
        """uint8 RGB at working size."""
        if self._frame_HW3 is None:
            assert self._picture is not None
            self._frame_HW3 = self._picture.rgb()
        return self._frame_HW3

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W), working size."""
        if self._picture is not None:
            return self._picture.shape
        height, width = self.frame_HW3.shape[:2]
        return height, width

    @property
    def area(self) -> float:
        """Share of the whole frame that it is; more than its part of a grid, since regions overlap."""
        return 1.0 if self.whole is None else math.prod(self.shape) / math.prod(self.whole)

    def luma(self) -> tuple[np.ndarray, bool] | None:
        """What `Picture.luma` gives; None where only RGB was given."""
        return None if self._picture is None else self._picture.luma()

    def motion(self) -> Motion | None:
        """What the stream says of its motion; None: nothing."""
        if self._motion is None:
            read = getattr(self._picture, "motion", None)
            self._motion = (None if read is None else read(),)
        return self._motion[0]


@dataclass(slots=True, kw_only=True)
class FrameResult:
    """The final mask of one frame and how it came about. Field names are those of the output table."""

    frame_index: int
    pts_s: float
    is_key: bool
    key_frame_index: int
    """Video-wide number of the last key frame, the frame's own if it is key (with two sides too)."""
    decision_score: float
    """The scheduler's score; +inf for a forced key, -inf for a damaged frame that was not asked about."""
    kar: float
    """Keys / decisions over the last 90 decisions before this one; 0 for the first frame of a segment."""
    lkd: int
    """Decoded frames since the key that was the last one *before* this decision: for a key the length of the
    interval it closes; 0 for the first frame of a segment."""
    is_corrupt: bool
    labels_HW: np.ndarray
    """uint8 class ids at working size. May be shared with other results: treat as read-only."""
    confidence: float = math.nan
    """Mean over the frame of the probability of each pixel's class, 0..1; NaN unless a `LabelRule` asks."""
    confident_share: float = math.nan
    """Share of pixels that keep a label (the others are 255), 0..1; NaN unless a `LabelRule` asks."""
    filled_by: str = ""
    """What filled the frame and why, where the propagator chooses (`Gap.filled_by`)."""
    region_keys: list[bool] | None = None
    """Of a frame with several regions, row by row of the grid: which were keys."""
    region_key_frame_index: list[int] | None = None
    """Their last key frames."""
    region_scores: list[float] | None = None
    """Their scores."""
    key_share: float | None = None
    """Share of the frame's pixels that N saw, overlap counted, 0 to more than 1."""
