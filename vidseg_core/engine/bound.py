"""How much is kept of one segment at most: frames that wait, what their pictures and the keys take, and what
a propagator holds while it fills the gap between them.

Bytes are those of arrays and tensors, in memory and before the compression of a stored state. What follows
from sizes and options is reckoned; what only a run shows (a key's scores or features, what the propagator
makes of a key and what it carries over, unless it says how much these are at most) is measured on a state and
goes up with the frame's pixels.

Legend: H, W working size; h, w flow size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch

from vidseg_core.engine.look import view_size
from vidseg_core.engine.state import SegmentState
from vidseg_core.propagation.filler import Filler
from vidseg_core.scheduling.lookahead_window import asks, looked_at
from vidseg_core.scheduling.protocol import Scheduler, WindowScheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Of one segment."""

    frames: int
    """Frames that may wait at a time."""
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes per pixel at working size of what only a run shows."""

    carried: float = 0.0
    """A key's label map, scores or features."""
    made: float = 0.0
    """Its low-level features, and what the propagator made of it."""
    remembered: float = 0.0
    """What the propagator carries over."""

    def most(self, other: Measured) -> Measured:
        """The larger of each."""
        return Measured(
            carried=max(self.carried, other.carried),
            made=max(self.made, other.made),
            remembered=max(self.remembered, other.remembered),
        )


def measure(state: SegmentState, size: tuple[int, int]) -> Measured:
    """What this state holds now; `size` (H, W) of its frames."""
    pixels, key = size[0] * size[1], state.key
    carried, made = (None, None) if key is None else (key.carried, (key.low_maps, key.kept))
    return Measured(
        carried=bytes_of(carried) / pixels,
        made=bytes_of(made) / pixels,
        remembered=bytes_of(state.carried_over) / pixels,
    )


def bytes_of(held: Any) -> int:
    """Of the arrays and tensors in it."""
    if isinstance(held, np.ndarray | torch.Tensor):
        return held.nbytes
    if isinstance(held, dict):
        return sum(map(bytes_of, held.values()))
    if is_dataclass(held) and not isinstance(held, type):
        return sum(bytes_of(getattr(held, part.name)) for part in fields(held))
    return sum(map(bytes_of, held)) if isinstance(held, tuple | list) else 0


def state_bound(
    filler: Filler,
    scheduler: Scheduler | WindowScheduler,
    *,
    two_sided: bool,
    max_interval: int,
    flow_size: int,
    channels: int,
    size: tuple[int, int],
    whole: tuple[int, int] | None = None,
    references: int = 0,
    late: bool,
    measured: Measured,
) -> Bound:
    """`channels`: of the flow picture; `size`: (H, W), of a crop of frames of size `whole`; `late`: with low
    latency a key's own result waits, and something stands in for it; `references`: flows that are kept for
    later frames."""
    pixels = size[0] * size[1]
    height, width = view_size(*size, flow_size, whole)
    view, frame = height * width * channels, 3 * pixels
    undecided = looked_at(scheduler, max_interval) if isinstance(scheduler, WindowScheduler) else 0
    pending = max_interval - 1 if two_sided else 0
    keeps_frame = filler.keeps_frame or bool(getattr(scheduler, "needs_low", False))
    carried = max(pixels if filler.level == "labels" else 0, round(measured.carried * pixels))
    colours = 3 * height * width if filler.reads == "colours" else 0
    key = (
        view
        + (frame if keeps_frame else colours)
        + carried * (2 if late else 1)
        + max(round(measured.made * pixels), filler.most_kept())
    )
    of_pending = (view if filler.reads != "nothing" else 0) + (frame if filler.reads == "frame" else colours)
    before = view + (1 + references) * 8 * height * width  # of the frame before; flows referred to
    remembered = max(round(measured.remembered * pixels), filler.most_remembered(height, width, channels))
    total = (2 if two_sided else 1) * key + before + remembered
    total += pending * of_pending + undecided * (view + frame) + filler.most_held(pending)
    total += undecided * carried if asks(scheduler) else 0
    return Bound(frames=pending + undecided, bytes=total)
