"""What goes into the engine and what comes out, one object per frame.

Legend: H, W working size; 3 = RGB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(slots=True, kw_only=True)
class FrameInput:
    """One decoded frame of a segment."""

    frame_index: int
    """Video-wide number of the frame; strictly increasing within a segment, lost frames leave gaps."""
    pts_s: float
    """Presentation time in seconds."""
    is_corrupt: bool
    """The decoder marked the frame as damaged."""
    frame_HW3: np.ndarray
    """uint8 RGB at working size. Read during `Engine.step` only; what outlives the call is copied."""


@dataclass(slots=True, kw_only=True)
class FrameResult:
    """The final mask of one frame and how it came about. Field names are those of the output table."""

    frame_index: int
    pts_s: float
    is_key: bool
    key_frame_index: int
    """Video-wide number of the last key frame, the frame's own if it is key (with two sides too)."""
    decision_score: float
    """The scheduler's score; +inf for a forced key, -inf for a damaged frame that was not asked about."""
    kar: float
    """Keys / decisions over the last 90 decisions before this one; 0 for the first frame of a segment."""
    lkd: int
    """Decoded frames since the key that was the last one *before* this decision: for a key the length of the
    interval it closes; 0 for the first frame of a segment."""
    is_corrupt: bool
    labels_HW: np.ndarray
    """uint8 class ids at working size. May be shared with other results: treat as read-only."""
    confidence: float = math.nan
    """Mean over the frame of the probability of each pixel's class, 0..1; NaN unless a `LabelRule` asks."""
    confident_share: float = math.nan
    """Share of pixels that keep a label (the others are 255), 0..1; NaN unless a `LabelRule` asks."""
