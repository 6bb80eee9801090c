"""Everything the engine remembers of one segment between two frames.

A `SegmentState` is data: the engine reads it, and `to_bytes` / `from_bytes` (in `codec`) carry it to another
process. Invariant: a restored state gives bit for bit the masks that the original would have given. What can
be recomputed from what is kept (flows of pending frames, scores and features of the key) is not stored.

Legend: H, W working size; h, w flow size; 3 = RGB; 2 = (u, v).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidseg_core.engine.frames import FrameResult
from vidseg_core.scheduling.history import DecisionHistory

STATE_VERSION = 3

NO_KEY = -1
"""`SegmentState.planned`: no more keys up to the end of the segment."""


@dataclass(slots=True, kw_only=True)
class KeyFrame:
    """The last key frame (LKF) and what is kept of it for propagation."""

    ordinal: int
    """Its number in the segment, counted in decoded frames."""
    frame_index: int
    """Its video-wide number."""
    is_corrupt: bool
    view: np.ndarray
    """What the flow estimator sees of it: uint8 gray hw, or RGB hw3, at flow size."""
    carried: Any
    """labels_HW, scores or features, by level; None: not yet recomputed from `frame_HW3` after a restore."""
    frame_HW3: np.ndarray | None
    """The RGB frame at working size, kept at levels scores and features only."""
    plan_labels: np.ndarray | None = None
    """N's mask at the size of planning, for schedulers that look ahead only."""


@dataclass(slots=True, kw_only=True)
class PendingFrame:
    """A frame that waits for the next key (two-sided propagation): its decision and what it looks like."""

    frame_index: int
    pts_s: float
    is_corrupt: bool
    decision_score: float
    kar: float
    lkd: int
    view: np.ndarray
    """uint8 gray hw or RGB hw3 at flow size."""
    flow_hw2: np.ndarray | None = None
    """Flow to the key before it, if it has been estimated already; never stored."""


@dataclass(slots=True, kw_only=True)
class WaitingFrame:
    """A frame that waits to be planned (see `ahead`); it has not been stepped over yet."""

    frame_index: int
    pts_s: float
    is_corrupt: bool
    shape: tuple[int, int]
    """(H, W), working size."""
    view: np.ndarray
    """uint8 gray hw or RGB hw3 at flow size."""
    frame_HW3: np.ndarray | None
    """uint8 RGB at working size, of frames that can become key."""


@dataclass(slots=True, kw_only=True)
class SegmentState:
    """State of one segment. `SegmentState.new(...)` starts it; `Engine.step` advances it in place."""

    seed: int
    segment: str
    """A name that tells segments of a run apart; with the seed it decides all random numbers."""
    next_frame: int = 0
    """Ordinal of the frame that comes next: the number of frames stepped over so far."""
    last_frame_index: int = -1
    """Video-wide number of the frame stepped over last."""
    level: str = ""
    """Propagation level of the engine that advanced it; empty before the first frame."""
    key: KeyFrame | None = None
    last_flow_hw2: np.ndarray | None = None
    """Flow of the frame stepped over last to the key, when the engine has estimated it: it helps the
    frame that comes next (`propagation.chain`). None right after a key."""
    last_view: np.ndarray | None = None
    """Flow picture of the frame stepped over last, for schedulers that read it; None right after a key."""
    history: DecisionHistory = field(default_factory=DecisionHistory)
    memory: float = 0.0
    """A number that the scheduler keeps from frame to frame; 0 after a key (`Deviation.remember`)."""
    pending: list[PendingFrame] = field(default_factory=list)
    waiting: list[WaitingFrame] = field(default_factory=list)
    """Frames behind the one stepped over last whose decision is still to be planned."""
    planned: int | None = None
    """Ordinal of the next key, `NO_KEY` if there is none up to the end; None: not planned yet."""
    undelivered: list[FrameResult] = field(default_factory=list)
    """Results of a step that failed half-way; the next one hands them out. Never stored."""
    interrupted_at: int | None = None
    """Video-wide number of the frame that a step took in before it failed. Never stored."""

    @classmethod
    def new(cls, seed: int, segment: str) -> SegmentState:
        """The state before the first frame of a segment."""
        return cls(seed=seed, segment=segment)

    def to_bytes(self) -> bytes:
        """This state as bytes: versioned, checksummed, compressed, no pickle."""
        from vidseg_core.engine.codec import encode_state

        return encode_state(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> SegmentState:
        """The state that `to_bytes` stored. Raises StateError for damaged bytes or another version."""
        from vidseg_core.engine.codec import decode_state

        return decode_state(data)
