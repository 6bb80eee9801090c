"""Which frames of a video are processed: those of a range of time, at a rate.

Model: a frame's time is its presentation time, counted from the video's first frame. Of the frames in the
range from `start_s` (included) to `end_s` (left out), `fps` takes the one that is nearest to each of the
moments `start_s`, `start_s + 1/fps`, `start_s + 2/fps` and so on, the earlier of two that are equally near.
So ten a second of thirty are every third, thirty of 29.97 are all of them, and where the frame rate varies
nothing is repeated: a frame that is nearest to several moments comes once.

In an irregular video the latest time so far counts: a frame that comes somewhat late is where that is. Frames
without a time, or with that of the frame before, and a clock that is set back for good (recordings that were
joined), follow by the container's frame rate.

Invariant: the frames depend on the times of the whole video alone, never on segments, units or shards. The
first frame of the range is always taken. Frames keep their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from vidseg_core.config.excerpt import Excerpt
from vidseg_core.media.errors import MediaError
from vidseg_core.media.model import NO_TIME, VideoIndex, seconds_of

_REORDERED = 16
"""Frames by which a time may step back and be only late (decoders hold so many); more is a clock set anew."""
_TIE = 1e-6
"""What rounding may take from a time in units of 1/fps."""


def frames_of(excerpt: Excerpt, index: VideoIndex, uri: str) -> np.ndarray | None:
    """int64[k], increasing: numbers of the frames that are taken; None: all.

    Raises MediaError no_frames if there are none.
    """
    if excerpt.is_whole:
        return None
    start_s, end_s = excerpt.start_s or 0.0, math.inf if excerpt.end_s is None else excerpt.end_s
    times = clock_of(index)
    numbers = np.flatnonzero((times >= start_s) & (times < end_s))
    if not len(numbers):
        text = f"{uri}: there is no frame ({excerpt.words()}); the last one is at {times[-1]:.3f} s"
        raise MediaError("no_frames", text)
    if excerpt.fps is not None:
        numbers = numbers[_nearest(times[numbers] - start_s, excerpt.fps)]
    return None if len(numbers) == index.frames else numbers


def count_of(excerpt: Excerpt, index: VideoIndex, uri: str) -> int:
    """How many frames are taken."""
    frames = frames_of(excerpt, index, uri)
    return index.frames if frames is None else len(frames)


def covered_s(excerpt: Excerpt, index: VideoIndex) -> float:
    """Seconds of the video that its range covers; NaN where its length is unknown."""
    stop = index.duration_s if excerpt.end_s is None else np.minimum(excerpt.end_s, index.duration_s)
    return float(np.maximum(0.0, stop - (excerpt.start_s or 0.0)))


def number_of(frames: np.ndarray | None, place: int) -> int:
    """Number of the frame at a place among those that are taken (`frames_of`)."""
    return place if frames is None else int(frames[place])


def clock_of(index: VideoIndex) -> np.ndarray:
    """float64[N], never falling: seconds from the video's first frame to each of its frames."""
    pts, num, den = index.frame_pts, index.time_base_num, index.time_base_den
    if index.regular:
        return seconds_of(pts - pts[:1], num, den)
    return np.cumsum(np.array(list(_steps(pts.tolist(), index.frame_duration)), np.float64)) * num / den


def _steps(pts: list[int], usual: int) -> Iterator[int]:
    """How far the clock goes on at each frame; `usual`: from one to the next by the container's rate."""
    latest, before = pts[0], pts[0]
    yield 0
    for time in pts[1:]:
        if time in (NO_TIME, before):
            step = usual
            latest += usual if latest != NO_TIME else 0
        elif latest == NO_TIME or time < latest - _REORDERED * usual:  # the first one, or a clock set anew
            step, latest = usual, time
        else:
            step, latest = max(0, time - latest), max(time, latest)
        before = time
        yield step


def _nearest(times: np.ndarray, fps: float) -> np.ndarray:
    """Whether each frame is nearest to a multiple of 1/fps.

    It is if there is one between half the way from the frame before and half the way to the frame after. What
    lies half way but for rounding belongs to the earlier one.
    """
    half_steps = np.diff(times, append=times[-1:] + np.diff(times[-2:]).sum()) / 2
    reached = np.floor((times + half_steps) * fps + _TIE)
    return np.diff(reached, prepend=-1) > 0
