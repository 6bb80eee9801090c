"""What a scheduler that looks ahead is shown: the frames after the last key, small, and that key's mask.

Model: frame 0 of a window is the last key. The frames after it are not decided yet. The scheduler names those
that become keys; the first of them is used. From there it looks ahead again, with that key's own mask and
with later frames in view. Of a scheduler that asks for N's masks all keys are used, which are the frames that
it has asked about.

Invariant: what a window holds depends on the frames of the segment and on the keys before it alone, so a
choice is the same in the engine and on tables, and in whatever pieces the frames arrive.

Legend: T frames of the window; h, w at most `LOOKAHEAD_SIZE`; gray and labels uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np

Plan: TypeAlias = Generator[list[int], list[np.ndarray], list[int]]
"""Of a scheduler that asks: yields places of a window whose masks it wants, is sent N's at the size of the
pictures, and returns the keys."""

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
    first: int = 0
    """Number of the last key in the segment, in decoded frames."""
    area: float = 1.0
    """Share of the frame that the pictures show, of a region (its overlap counted)."""
    class_shares_K: np.ndarray | None = None
    """float64, by class id: share of the frame's pixels in the first undamaged key of the segment, for
    schedulers that ask for masks."""

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


def class_shares(labels_HW: np.ndarray) -> np.ndarray:
    """float64 [256]: by class id the share of the pixels."""
    return np.bincount(labels_HW.ravel(), minlength=256) / labels_HW.size


def looked_at(scheduler: Any, max_interval: int) -> int:
    """Frames after the last key that are shown: a choice that ends with a key that has not had its frames yet
    says little of that key, so more of them than an interval may have; twice as many are enough. One that
    asks for N's masks knows what its last key says: an interval."""
    return max_interval if asks(scheduler) else min(int(scheduler.window), 2 * max_interval)


def asks(scheduler: Any) -> bool:
    """Does it ask for N's masks of frames that it chooses (see `protocol.WindowScheduler`)?"""
    return bool(getattr(scheduler, "asks", False))


def next_key(keys: Sequence[int], window: LookaheadWindow, stride: int) -> int | None:
    """The chosen key that is used; None: no more keys up to the end. `ValueError` for what is no choice.

    Only every `stride`-th frame may be chosen. Where a choice leaves more frames without a key than may be,
    or the segment goes on and it has none, the last frame that may be is taken.
    """
    chosen = _checked(keys, window, stride)
    if chosen and chosen[0] <= window.max_interval:
        return chosen[0]
    if not chosen and window.ends and window.frames <= window.max_interval:
        return None
    places = np.arange(stride, min(window.frames, window.max_interval + 1), stride)
    sound = places[window.sound_T[places]]
    return int(sound[-1] if len(sound) else places[-1])


def all_keys(keys: Sequence[int], window: LookaheadWindow, stride: int) -> list[int]:
    """The keys that are used of a plan that has asked about each: all; without any what `next_key` says."""
    chosen = _checked(keys, window, stride)
    if chosen and chosen[0] <= window.max_interval:
        return chosen
    first = next_key([], window, stride)
    return [] if first is None else [first]


def _checked(keys: Sequence[int], window: LookaheadWindow, stride: int) -> list[int]:
    chosen = [int(key) for key in keys]
    rises = all(a < b for a, b in zip([0, *chosen], chosen, strict=False))
    if not rises or any(key % stride or key >= window.frames for key in chosen):
        raise ValueError(
            f"a plan names increasing frames from 1 to {window.frames - 1} in steps of {stride}, not {chosen}"
        )
    return chosen


def lookahead_keys(
    plan: Callable[[LookaheadWindow], Sequence[int] | Plan],
    reach: int,
    stride: int,
    grays: Sequence[np.ndarray],
    labels: Callable[[int], np.ndarray],
    *,
    two_sided: bool,
    max_interval: int,
    area: float = 1.0,
    class_shares_K: np.ndarray | None = None,
) -> list[int]:
    """All keys of an undamaged segment, window by window, as the engine has them.

    `reach`: frames that are shown (`looked_at`). `labels(k)`: N's mask of frame k at the pictures' size.
    """
    keys, frames = [0], len(grays)
    while True:
        last = keys[-1]
        stop = min(last + reach + 1, frames)
        window = LookaheadWindow(
            grays=grays[last:stop],
            labels_hw=labels(last),
            sound_T=np.ones(stop - last, bool),
            ends=stop - last <= reach,  # a full window is chosen from before its segment is known to end
            two_sided=two_sided,
            max_interval=max_interval,
            first=last,
            area=area,
            class_shares_K=class_shares_K,
        )
        (found,) = chosen_keys(
            plan, [window], stride, lambda asked, k=last: [labels(k + p) for _, p in asked]
        )
        if not found:
            return keys
        keys += [last + key for key in found]


def chosen_keys(
    plan: Callable[[LookaheadWindow], Sequence[int] | Plan],
    windows: Sequence[LookaheadWindow],
    stride: int,
    masks: Callable[[list[tuple[int, int]]], list[np.ndarray]],
) -> list[list[int]]:
    """The keys of each window that are used; none: no more up to the end.

    `masks`: N's of (window, place), for plans that ask; all windows ask side by side, so that N sees many
    frames at once.
    """
    plans = [plan(window) if window.frames > 1 else [] for window in windows]
    asking = {number: each for number, each in enumerate(plans) if isinstance(each, Generator)}
    answers = _answered(asking, windows, stride, masks)
    found = []
    for number, (window, keys) in enumerate(zip(windows, plans, strict=True)):
        if number in answers:
            found.append(all_keys(answers[number], window, stride))
        elif window.frames > 1:
            first = next_key(keys, window, stride)  # type: ignore[arg-type]
            found.append([] if first is None else [first])
        else:
            found.append([])
    return found


def _answered(
    plans: Mapping[int, Plan],
    windows: Sequence[LookaheadWindow],
    stride: int,
    masks: Callable[[list[tuple[int, int]]], list[np.ndarray]],
) -> dict[int, list[int]]:
    """What plans that ask return."""
    keys: dict[int, list[int]] = {}
    sent: dict[int, list[np.ndarray] | None] = dict.fromkeys(plans)
    while sent:
        asked: dict[int, list[int]] = {}
        for number, answer in sent.items():
            try:
                places = next(plans[number]) if answer is None else plans[number].send(answer)
                asked[number] = _places_asked(places, windows[number], stride)
            except StopIteration as end:
                keys[number] = list(end.value)
        found = iter(masks([(number, place) for number, places in asked.items() for place in places]))
        sent = {number: [next(found) for _ in places] for number, places in asked.items()}
    return keys


def _places_asked(places: Sequence[int], window: LookaheadWindow, stride: int) -> list[int]:
    if any(place not in range(stride, window.frames, stride) for place in places):
        problem = f"from {stride} to {window.frames - 1} in steps of {stride}, not {list(places)}"
        raise ValueError(f"a plan asks for masks of frames {problem}")
    return [int(place) for place in places]
