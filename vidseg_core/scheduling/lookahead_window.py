"""What a scheduler that looks ahead is shown: the frames after the last key, small, and that key's mask.

Model: frame 0 of a window is the last key. The frames after it are not decided yet. The scheduler names those
that become keys; the first of them is used. From there it looks ahead again, with that key's own mask and
with later frames in view.

Invariant: what a window holds depends on the frames of the segment and on the keys before it alone, so a
choice is the same in the engine and on tables, and in whatever pieces the frames arrive.

Legend: T frames of the window; h, w at most `LOOKAHEAD_SIZE`; gray and labels uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

LOOKAHEAD_SIZE = 128
"""Longest side in pixels of the pictures of a window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookaheadWindow:
    """A stretch of one segment, from its last key on."""

    grays: Sequence[np.ndarray]
    """T pictures gray_hw uint8; the first is the last key. Treat as read-only."""
    labels_hw: np.ndarray
    """N's mask of the last key at the size of the pictures."""
    sound_T: np.ndarray
    """bool: the frame is undamaged; no other may become key."""
    ends: bool
    """The segment ends with the window."""
    two_sided: bool
    """Frames between two keys show the better of both sides."""
    max_interval: int
    """No key may be further from the one before, frames."""

    @property
    def frames(self) -> int:
        return len(self.grays)


def lookahead_view(gray: np.ndarray) -> np.ndarray:
    """A frame as a window has it: gray_hw uint8 of any size, area-averaged to LOOKAHEAD_SIZE."""
    height, width = lookahead_shape(*gray.shape[:2])
    if gray.shape == (height, width):
        return gray
    return cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)


def lookahead_labels(labels_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """N's mask at the size of the pictures, uint8, nearest."""
    return cv2.resize(labels_HW, (width, height), interpolation=cv2.INTER_NEAREST)


def lookahead_shape(height: int, width: int) -> tuple[int, int]:
    """(h, w): longest side LOOKAHEAD_SIZE, aspect kept, never enlarged."""
    longest = max(height, width)
    if longest <= LOOKAHEAD_SIZE:
        return height, width
    return max(1, round(height * LOOKAHEAD_SIZE / longest)), max(1, round(width * LOOKAHEAD_SIZE / longest))


def looked_at(window: int, max_interval: int) -> int:
    """Frames after the last key that are shown: a choice that ends with a key that has not had its frames yet
    says little of that key, so more of them than an interval may have; twice as many are enough."""
    return min(window, 2 * max_interval)


def next_key(keys: Sequence[int], window: LookaheadWindow, stride: int) -> int | None:
    """The chosen key that is used; None: no more keys up to the end. `ValueError` for what is no choice.

    Only every `stride`-th frame may be chosen. Where a choice leaves more frames without a key than may be,
    or the segment goes on and it has none, the last frame that may be is taken.
    """
    chosen = [int(key) for key in keys]
    rises = all(a < b for a, b in zip([0, *chosen], chosen, strict=False))
    if not rises or any(key % stride or key >= window.frames for key in chosen):
        raise ValueError(
            f"a plan names increasing frames from 1 to {window.frames - 1} in steps of {stride}, not {chosen}"
        )
    if chosen and chosen[0] <= window.max_interval:
        return chosen[0]
    if not chosen and window.ends and window.frames <= window.max_interval:
        return None
    places = np.arange(stride, min(window.frames, window.max_interval + 1), stride)
    sound = places[window.sound_T[places]]
    return int(sound[-1] if len(sound) else places[-1])


def lookahead_keys(
    plan: Callable[[LookaheadWindow], Sequence[int]],
    reach: int,
    stride: int,
    grays: Sequence[np.ndarray],
    labels: Callable[[int], np.ndarray],
    *,
    two_sided: bool,
    max_interval: int,
) -> list[int]:
    """All keys of an undamaged segment, window by window, as the engine has them.

    `labels(k)`: N's mask of frame k at the size of the pictures.
    """
    reach = looked_at(reach, max_interval)
    keys, frames = [0], len(grays)
    while True:
        last = keys[-1]
        stop = min(last + reach + 1, frames)
        window = LookaheadWindow(
            grays=grays[last:stop],
            labels_hw=labels(last),
            sound_T=np.ones(stop - last, bool),
            ends=stop == frames,
            two_sided=two_sided,
            max_interval=max_interval,
        )
        key = next_key(plan(window), window, stride) if window.frames > 1 else None
        if key is None:
            return keys
        keys.append(last + key)
