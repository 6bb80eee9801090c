"""Which frames around a frame it is learned with: one before and one after (ETC IV-A, random sampling).

Model: the frames of a clip stand in order; of those at most `gap` frames before a frame one is drawn, and of
those at most `gap` after it another one. At an end of its clip both come from the side where there are some.
Distances are those of frame numbers. A frame that is farther than `MOST_APART` from all others is a still:
nothing can be followed from it to them, and it has no neighbours however long the gap. They need no labels.
Invariant: what is drawn depends on the clip, the frame, the gap and the random numbers alone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from vidseg_core.datasets.records import Item

COUNT = 2
"""Neighbours of a frame: before and after it."""
MOST_APART = 10
"""Frames from a frame of a video to its nearest; farther apart they are stills."""


def around(clip: Sequence[Item], frame_index: int, gap: int) -> tuple[Sequence[Item], Sequence[Item]]:
    """The frames of `clip`, which is in order, up to `gap` before this frame, and up to `gap` after it; of a
    still none."""
    before, after = _within(clip, frame_index, gap)
    nearest = [*before[-1:], *after[:1]]
    if all(abs(item.frame_index - frame_index) > MOST_APART for item in nearest):
        return (), ()
    return before, after


def is_still(clip: Sequence[Item], frame_index: int, gap: int) -> bool:
    """Are there frames at most `gap` away, and none of them a neighbour?"""
    return any(_within(clip, frame_index, gap)) and not has_neighbours(clip, frame_index, gap)


def _within(clip: Sequence[Item], frame_index: int, gap: int) -> tuple[Sequence[Item], Sequence[Item]]:
    number = _number
    before = clip[
        bisect_left(clip, frame_index - gap, key=number) : bisect_left(clip, frame_index, key=number)
    ]
    after = clip[
        bisect_right(clip, frame_index, key=number) : bisect_right(clip, frame_index + gap, key=number)
    ]
    return before, after


def draw_neighbours(
    clip: Sequence[Item], frame_index: int, gap: int, rng: np.random.Generator
) -> tuple[Item, ...]:
    """`COUNT` neighbours of a frame, the one before it first; none where it has none."""
    before, after = around(clip, frame_index, gap)
    if not before and not after:
        return ()
    sides = (before or after, after or before)
    return tuple(side[int(rng.integers(len(side)))] for side in sides)


def clips_of(items: Sequence[Item]) -> dict[str, tuple[Item, ...]]:
    """The frames of each clip in order, by video id; `items` are sorted."""
    return {video: tuple(found) for video, found in groupby(items, key=lambda item: item.video_id)}


def has_neighbours(clip: Sequence[Item], frame_index: int, gap: int) -> bool:
    """Is there a frame at most `gap` away?"""
    return any(around(clip, frame_index, gap))


def _number(item: Item) -> int:
    return item.frame_index
