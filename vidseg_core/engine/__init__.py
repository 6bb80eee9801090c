"""Key frames, propagation and state, without Ray: the whole of what happens to a frame after decoding."""

from __future__ import annotations

from vidseg_core.engine.codec import StateError
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.frames import FrameInput, FrameResult
from vidseg_core.engine.state import SegmentState
from vidseg_core.engine.stats import EngineStats

__all__ = ["Engine", "EngineStats", "FrameInput", "FrameResult", "SegmentState", "StateError"]
