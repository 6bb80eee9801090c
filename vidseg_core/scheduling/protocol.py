"""Key or not: a scheduler gives each frame a score, and a frame is key when its score exceeds the threshold;
or, in a job that may look ahead, it chooses the keys of a window.

The engine adds three rules to every scheduler. They need no score, and such a frame is recorded with the
score +inf, so that `is_key == (score > threshold)` holds for every frame:
- the first frame of a segment is key;
- a frame `max_interval` frames after the last key is key;
- a scheduler that avoids corrupt frames gets a key at the first sound frame after a corrupt key.
A frame that the decoder marked as damaged is not offered to a scheduler that avoids corrupt frames (score
-inf): its picture differs wildly from the key, and as a key it would spoil every frame up to the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from vidseg_core.scheduling.deviation import Deviation
from vidseg_core.scheduling.lookahead_window import LookaheadWindow, Plan


@runtime_checkable
class Scheduler(Protocol):
    """An online key frame scheduler. It holds no state of a video: that is in the `Deviation`.

    class DarkFrames:
        needs_flow, avoids_corrupt, threshold = False, True, 0.5
        def score(self, deviation):
            return float(deviation.gray_current.mean() < 40)
    """

    needs_flow: bool
    """True: the engine estimates the flow of every frame that may not be key, of all lanes in one call,
    before it asks for scores. A scheduler that says False and still reads the flow gets a RuntimeError."""

    avoids_corrupt: bool
    """True: damaged frames do not become keys unless `max_interval` or the start of a segment forces one."""

    threshold: float
    """A frame is key when its score is greater than this."""

    # A scheduler may have `needs_previous = True`: then the deviation knows the frame before, too
    # (`gray_previous`), and the state keeps one more picture. It may have `needs_low = True`: then the engine
    # runs the lower part of N on every frame, once, and the deviation has its features (`low`, `key_low`). It
    # may name `map_sets` (`pair_maps`): then the flow net hands out its maps with the flow (`pair_map`).

    def score(self, deviation: Deviation) -> float:
        """How much a key is wanted at this frame; never called for the first frame of a segment."""
        ...


@runtime_checkable
class WindowScheduler(Protocol):
    """A scheduler for jobs that may look ahead. It holds no state of a video either.

    The engine adds the rules above, and asks again after each key. Keys that it chose have score 1, other
    frames 0. It may choose undamaged frames in steps of `stride` after the window's first frame, the last
    key.

    class EveryTenth:
        window, stride = 10, 10
        def plan(self, window):
            return [10] if window.frames > 10 else []
    """

    window: int
    """Frames to look ahead; twice `max_interval` if that is less."""

    stride: int
    """Every so many frames after the last key one may be key; 1: any."""

    # A scheduler may have `asks = True`: then it is shown `max_interval` frames, and `plan` is a generator
    # (`lookahead_window.Plan`) that yields places, is sent N's masks of them, and returns the keys. All
    # of these are used, and they are the places that it has asked about.

    def plan(self, window: LookaheadWindow) -> Sequence[int] | Plan:
        """Places in the window, increasing, of frames that are to be keys. The first one is used."""
        ...


def checked_threshold(threshold: float) -> float:
    """The threshold as a float; ValueError unless it is a number >= 0."""
    value = float(threshold)
    if not value >= 0.0:
        raise ValueError(f"scheduler.threshold must be a number >= 0, not {threshold!r}")
    return value


def checked_interval(interval: float) -> float:
    """ValueError unless the interval is a number >= 1 (frames)."""
    if not interval >= 1:
        raise ValueError(f"scheduler.interval must be at least 1 frame, not {interval!r}")
    return interval
