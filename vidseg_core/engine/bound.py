"""How much is kept of one segment at most: frames that wait, and what their pictures and the keys take.

Bytes are those of the arrays, in memory and before the compression of a stored state. Not counted: a key's
scores or features, which are not stored (but with low latency for `delay` frames), and what a propagator
carries over by itself.

Legend: H, W working size; h, w flow size.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidseg_core.engine.look import view_size
from vidseg_core.propagation.filler import Filler
from vidseg_core.scheduling.lookahead_window import looked_at
from vidseg_core.scheduling.protocol import Scheduler, WindowScheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Of one segment."""

    frames: int
    """Frames that may wait at a time."""
    bytes: int


def state_bound(
    filler: Filler,
    scheduler: Scheduler | WindowScheduler,
    *,
    two_sided: bool,
    max_interval: int,
    flow_size: int,
    channels: int,
    size: tuple[int, int],
) -> Bound:
    """`channels`: of the flow picture; `size`: (H, W)."""
    pixels = size[0] * size[1]
    height, width = view_size(*size, flow_size)
    view, frame = height * width * channels, 3 * pixels
    undecided = looked_at(scheduler.window, max_interval) if isinstance(scheduler, WindowScheduler) else 0
    pending = max_interval - 1 if two_sided else 0
    keeps_frame = filler.keeps_frame or bool(getattr(scheduler, "needs_low", False))
    key = view + (pixels if filler.level == "labels" else 0) + (frame if keeps_frame else 0)
    of_pending = (view if filler.reads != "nothing" else 0) + (frame if filler.reads == "frame" else 0)
    before = view + 8 * height * width  # the flow picture and the flow of the frame before
    total = (2 if two_sided else 1) * key + before + pending * of_pending + undecided * (view + frame)
    return Bound(frames=pending + undecided, bytes=total)
