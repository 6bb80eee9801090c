"""How a video is meant to be shown: turned, mirrored, its pixels not square, in high dynamic range.

Model: a display matrix is a rotation by quarter turns, and perhaps a change of left and right after it. The
rotation is applied to every frame, so that people stand upright; mirroring and the sample aspect ratio are
only noted, for masks that are to lie on the picture as players show it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidseg_core.media.hdr import transfer_of
from vidseg_core.media.model import MediaLimits, quarter_turns

MOST_STRETCHED = 16
"""A sample aspect ratio beyond this, to either side, is taken for damage."""


def _unnamed(kinds: type[Type], number: object) -> Type:
    """A kind of side data that FFmpeg knows and PyAV does not: EXIF of pictures, views of stereo video.

    Without it PyAV raises ValueError for all the side data of such a frame.
    """
    kind = object.__new__(kinds)
    kind._name_, kind._value_ = f"KIND_{number}", number
    return kind


Type._missing_ = classmethod(_unnamed)  # type: ignore[assignment, method-assign]


@dataclass(frozen=True, slots=True)
class Look:
    """The fields of these names in `VideoIndex`."""

    width: int
    height: int
    rotation: int
    shown_width: int
    shown_height: int
    mirrored: bool
    transfer: str

    @classmethod
    def of(cls, frame: VideoFrame, stream: VideoStream, limits: MediaLimits) -> Self:
        """What a video's first frame and its stream say."""
        rotation, mirrored = orientation(frame)
        width, height = frame.width, frame.height
        shown = width
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if Fraction(1, MOST_STRETCHED) <= aspect <= MOST_STRETCHED:
            shown = max(1, round(width * aspect))
        if shown * height > limits.max_pixels:
            shown = width
        sizes = (width, height), (shown, height)
        if rotation % 180:
            sizes = (height, width), (height, shown)
        return cls(*sizes[0], rotation, *sizes[1], mirrored, transfer_of(frame))


def orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Degrees, counter-clockwise, by which a frame is to be turned (0, 90, 180, -90), and whether left and
    right change after that."""
    data = frame.side_data.get("DISPLAYMATRIX")
    matrix = np.frombuffer(bytes(data), np.int32)[:5].astype(float) if data is not None else np.ones(0)
    if len(matrix) < 5:
        return quarter_turns(frame.rotation) * 90, False
    a, b, _, c, d = matrix
    if a * d - b * c >= 0:
        return quarter_turns(frame.rotation) * 90, False
    across, down = math.hypot(a, c), math.hypot(b, d)  # no zeros where the determinant is none
    return quarter_turns(-math.degrees(math.atan2(b / down, -a / across))) * 90, True
