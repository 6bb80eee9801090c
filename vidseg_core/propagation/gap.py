"""A gap: the frames between two keys, and what a propagator is shown of them.

Model: with one side a gap is the single frame after the last one, with no key on its right; with two sides it
is all frames strictly between two keys, or after the last key of a segment, again with none on the right.
Whoever fills a gap says what it reads (`Reads`): nothing else is made of a frame, kept while it waits, and
stored. Reading it is a RuntimeError that says which attribute is missing. What it makes itself of a key
(`keep`) or of a frame (`see`) is made once and is never stored: after a restore it is made again.

Legend: H, W working size; h, w flow size; 3 = RGB.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import cv2
import numpy as np

from vidseg_core.propagation.chain import Link

Reads: TypeAlias = Literal["nothing", "view", "colours", "frame"]
"""Of a frame that is no key: nothing; its flow picture (uint8 hw or hw3, as the flow estimator wants it);
that and its colours (`colours_hw3`), RGB at flow size; or the flow picture and the frame itself
(`frame_HW3`), RGB at working size."""
READS: tuple[str, ...] = get_args(Reads)

Memory: TypeAlias = dict[str, np.ndarray]
"""What a propagator carries over from frame to frame, by names of its own; empty right after a key (with low
latency also where the net's result takes effect), unless it has `at_key` and leaves something there, or says
`remembers`."""


@dataclass(slots=True, kw_only=True)
class Shown(ABC):
    """A frame as far as it was asked for."""

    rgb_HW3: np.ndarray | None = None
    """uint8 RGB at working size, or at flow size where no more than colours is needed; None: not kept."""
    low_maps: Any = None
    """What the lower half of N gives for it, one frame; None: not computed."""

    @abstractmethod
    def flow_size(self) -> tuple[int, ...]:
        """Rows and columns of its flow picture."""

    @property
    def colours_hw3(self) -> np.ndarray:
        """uint8 RGB at flow size, whatever is kept (N may need the whole frame); treat as read-only."""
        size = self.flow_size()
        if self.frame_HW3.shape[:2] == size:
            return self.frame_HW3
        return cv2.resize(self.frame_HW3, size[::-1], interpolation=cv2.INTER_AREA)

    @property
    def frame_HW3(self) -> np.ndarray:
        """uint8 RGB at working size, for propagators that read frames; treat as read-only."""
        if self.rgb_HW3 is None:
            raise RuntimeError(
                "a propagator that looks at frames must say so: reads = 'frame', or 'colours' for colours_hw3"
            )
        return self.rgb_HW3

    @property
    def low(self) -> Any:
        """Low-level features of the frame, without batch dimension."""
        if self.low_maps is None:
            raise RuntimeError("a propagator that reads low-level features must say so: needs_low = True")
        return self.low_maps


@dataclass(slots=True, kw_only=True)
class GapKey(Shown):
    """A key at an end of a gap."""

    view: np.ndarray
    """Its flow picture: uint8 gray hw, or RGB hw3, at flow size."""
    carried: Any
    """What is kept of it: labels_HW, scores or features, by level."""
    kept: Any = None
    """What the propagator made of this key (its `keep`); None: nothing yet, or `carried` has changed."""

    def flow_size(self) -> tuple[int, ...]:
        return self.view.shape[:2]


@dataclass(slots=True, kw_only=True)
class GapFrame(Shown):
    """A frame between keys."""

    left: Link
    """The way to the key before it: distance, and flow for a propagator that says `needs_flow`."""
    right: Link | None = None
    """The way to the key after it, if that is known."""
    seen: Any = None
    """What the propagator made of this frame (its `see`), while the frame is being filled."""

    @property
    def view(self) -> np.ndarray:
        """Its flow picture."""
        return self.left.current

    def flow_size(self) -> tuple[int, ...]:
        return self.view.shape[:2]


@dataclass(slots=True, kw_only=True)
class FramePair(Shown):
    """One key and one frame: all that a propagator sees that knows no other frame."""

    key: GapKey
    link: Link
    seen: Any = None
    """What the propagator made of the frame (its `see`)."""

    def flow_size(self) -> tuple[int, ...]:
        return self.link.current.shape[:2]


@dataclass(slots=True, kw_only=True)
class Gap:
    """Frames of one segment that are filled together, in order."""

    left: GapKey
    frames: list[GapFrame]
    right: GapKey | None = None
    memory: Memory = field(default_factory=dict)
    """What the frame before left here; what is set here, the next frame finds. Never changed in place."""
    filled_by: str = ""
    """How its frames were filled, in words for their rows; empty: there is nothing to say."""

    def pairs(self, frame: GapFrame) -> Iterator[FramePair]:
        """The frame with the key on its left, then with that on its right, if there is one."""
        yield pair_of(self.left, frame, frame.left)
        if self.right is not None and frame.right is not None:
            yield pair_of(self.right, frame, frame.right)


def pair_of(key: GapKey, frame: GapFrame, link: Link) -> FramePair:
    """The frame as seen from one key."""
    return FramePair(key=key, link=link, rgb_HW3=frame.rgb_HW3, low_maps=frame.low_maps, seen=frame.seen)


Item = TypeVar("Item")
Result = TypeVar("Result")


def in_calls(
    items: Iterable[Item],
    size: int,
    form: Callable[[Item], Hashable],
    run: Callable[[list[Item]], Iterable[Result]],
) -> Iterator[Result]:
    """`run` on at most `size` consecutive items of one form at a time, its results in order.

    For propagators with a net: `run` fills its calls up to one size, so that no result depends on the items
    beside it.
    """
    waiting: list[Item] = []
    for item in items:
        if waiting and (len(waiting) == size or form(item) != form(waiting[0])):
            yield from run(waiting)
            waiting = []
        waiting.append(item)
    if waiting:
        yield from run(waiting)
