"""Frames that wait until a scheduler that looks ahead has chosen among them.

Model: while such a scheduler's window is not full, frames of a segment wait in its state. In a full window,
or at the end of the segment, it chooses keys; the first of them is used, and the frames up to it are stepped
over one by one, as the engine steps over any frame, with their decisions made. Before the first undamaged key
there is nothing to look ahead from: such frames do not wait, the engine's own rules decide about them.

Invariants:
- at most `reach` frames of a segment wait, up to twice the longest interval;
- what the scheduler is shown depends on the frames of the segment and on its keys, never on how frames
  arrive;
- a frame that can become key waits with its picture, as all do for a propagator that reads frames; any other
  with its flow picture alone.

Legend: H, W working size; h, w flow size; 3 = RGB.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidseg_core.engine.frames import FrameInput
from vidseg_core.engine.look import gray_of
from vidseg_core.engine.net import ChunkedNet
from vidseg_core.engine.state import NO_KEY, SegmentState, WaitingFrame
from vidseg_core.engine.stats import EngineStats
from vidseg_core.scheduling.lookahead_window import (
    LookaheadWindow,
    asks,
    chosen_keys,
    lookahead_labels,
    lookahead_shape,
    lookahead_view,
    looked_at,
)
from vidseg_core.scheduling.protocol import WindowScheduler


class Lookahead:
    """Decides about the waiting frames of segments; holds nothing of a segment."""

    def __init__(
        self,
        scheduler: WindowScheduler,
        net: ChunkedNet,
        stats: EngineStats,
        *,
        two_sided: bool,
        max_interval: int,
        keeps_frames: bool = False,
    ) -> None:
        """`keeps_frames`: each frame waits with its picture, since the propagator (or S_l) looks at it."""
        self._net, self._stats = net, stats
        window, stride = scheduler.window, scheduler.stride
        for name, value in (("window", window), ("stride", stride)):
            if int(value) != value or value < 1:
                raise ValueError(f"a scheduler's {name} must be a whole number of at least 1, not {value!r}")
        self._scheduler, self._two_sided, self._max_interval = scheduler, two_sided, max_interval
        self._keeps_frames = keeps_frames
        self.stride = int(stride)
        self.asks = asks(scheduler)
        self.reach = looked_at(scheduler, max_interval)
        if min(self.reach, max_interval) < self.stride:
            raise ValueError(
                f"the scheduler chooses keys every {self.stride} frames, but max_interval is {max_interval}"
            )

    def waits(self, state: SegmentState) -> bool:
        """Do frames that come now have to wait? Not before there is an undamaged key."""
        return bool(state.waiting) or (state.key is not None and not state.key.is_corrupt)

    def keep(self, state: SegmentState, frame: FrameInput, view: np.ndarray) -> None:
        """Let a frame wait; `view` is its flow picture."""
        assert state.key is not None
        first = state.next_frame - state.key.ordinal
        distance = first + len(state.waiting)
        keeps_frame = self._keeps_frames or self._may_be_key(state, first, distance)
        state.waiting.append(
            WaitingFrame(
                frame_index=frame.frame_index,
                pts_s=frame.pts_s,
                is_corrupt=frame.is_corrupt,
                shape=frame.shape,
                view=view,
                frame_HW3=frame.frame_HW3.copy() if keeps_frame else None,
            )
        )

    def _may_be_key(self, state: SegmentState, first: int, distance: int) -> bool:
        """Whatever is chosen: may a frame so far after the last key become one while it waits? `first`: the
        distance of the first frame that waits.

        Steps begin at the last key, and again at one that `max_interval` forces; where no step was undamaged,
        a damaged frame is key, and the next one that is not follows it at once.
        """
        assert state.key is not None
        forced = distance // self._max_interval * self._max_interval
        if state.key.is_corrupt or distance % self.stride == 0 or (distance - forced) % self.stride == 0:
            return True
        last_step = min(self.reach, self._max_interval) // self.stride * self.stride
        return any(frame.is_corrupt for frame in state.waiting[max(0, last_step - first) :])

    def decide(self, state: SegmentState) -> bool | None:
        """Is the first waiting frame a key? None: that cannot be known yet."""
        if not state.waiting or state.next_key is None:
            return None
        return state.next_frame == state.next_key

    def choose(self, states: Sequence[SegmentState], ends: bool) -> None:
        """The next keys of all segments that wait for them and can know them."""
        due = [state for state in states if state.waiting and state.next_key is None]
        for state in (state for state in due if state.further_keys):
            state.next_key, *state.further_keys = state.further_keys
        due = [s for s in due if s.next_key is None and (ends or len(s.waiting) >= self.reach)]
        windows = [self._window(state, ends) for state in due]

        def masks(asked: list[tuple[int, int]]) -> list[np.ndarray]:
            frames = [due[number].waiting[place - 1] for number, place in asked]
            self._ask([frame for frame in frames if frame.labels_HW is None])
            return [self._small(frame) for frame in frames]

        found = chosen_keys(self._scheduler.plan, windows, self.stride, masks)
        for state, places in zip(due, found, strict=True):
            assert state.key is not None
            keys = [state.key.ordinal + place for place in places]
            state.next_key, *state.further_keys = keys or [NO_KEY]

    def _window(self, state: SegmentState, ends: bool) -> LookaheadWindow:
        key = state.key
        if key is None or key.lookahead_labels is None or state.next_frame != key.ordinal + 1:
            raise ValueError(
                f"segment {state.segment}: its state was made without a scheduler that looks ahead"
            )
        after = state.waiting[: self.reach]
        return LookaheadWindow(
            grays=[lookahead_view(gray_of(view)) for view in (key.view, *(frame.view for frame in after))],
            labels_hw=key.lookahead_labels,
            sound_T=np.array([True, *(not frame.is_corrupt for frame in after)]),
            ends=ends and len(after) == len(state.waiting),
            two_sided=self._two_sided,
            max_interval=self._max_interval,
            first=key.ordinal,
            area=state.area,
            class_shares_K=state.class_shares_K,
        )

    def _ask(self, frames: Sequence[WaitingFrame]) -> None:
        pictures = [frame.frame_HW3 for frame in frames if frame.frame_HW3 is not None]
        if len(pictures) < len(frames):
            raise ValueError("a scheduler asks for the mask of a frame that cannot be a key")
        with self._stats.timed("net"):
            results = self._net.run(pictures)
        for frame, (labels_HW, carried) in zip(frames, results, strict=True):
            frame.labels_HW, frame.carried = labels_HW, carried

    def _small(self, frame: WaitingFrame) -> np.ndarray:
        """N's mask at the size of planning."""
        assert frame.labels_HW is not None
        labels_HW, _, _ = self._net.settle(frame.labels_HW)
        return lookahead_labels(labels_HW, *lookahead_shape(*frame.view.shape[:2]))


def input_of(waiting: WaitingFrame) -> FrameInput:
    """The frame as the engine steps over it."""
    return FrameInput(
        frame_index=waiting.frame_index,
        pts_s=waiting.pts_s,
        is_corrupt=waiting.is_corrupt,
        picture=_Kept(waiting),
    )


class _Kept:
    """The picture of a frame that has waited."""

    def __init__(self, waiting: WaitingFrame) -> None:
        self._waiting = waiting
        self.shape = waiting.shape

    def rgb(self) -> np.ndarray:
        if self._waiting.frame_HW3 is None:
            raise RuntimeError(f"frame {self._waiting.frame_index} waited without its picture")
        return self._waiting.frame_HW3

    def luma(self) -> tuple[np.ndarray, bool] | None:
        return None
