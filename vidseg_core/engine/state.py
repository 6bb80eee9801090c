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

from vidseg_core.scheduling.history import DecisionHistory

STATE_VERSION = 1


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
    history: DecisionHistory = field(default_factory=DecisionHistory)
    pending: list[PendingFrame] = field(default_factory=list)

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
