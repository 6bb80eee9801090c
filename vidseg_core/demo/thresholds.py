"""A threshold at which a scoring scheduler takes about as many keys as the fixed one: like is compared with
like.

Model: the number of keys falls as the threshold rises, so bisection over thresholds (in ratios) finds the
wanted number, or what comes nearest to it. Invariant: only pictures are looked at. No mask and no truth plays
a part, so a threshold is not tuned for quality, and the same pictures give the same threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from vidseg_core.config.segment import PropagationConfig, SegmentConfig
from vidseg_core.engine import FrameInput
from vidseg_core.engine.assemble import build_engine, new_state
from vidseg_core.scheduling import Scheduler

FRAMES, CLIPS = 360, 3
"""What is looked at at most: the first frames of the first clips, `FRAMES` in all."""
STEPS = 7
OCTAVES = 4.0
"""How far from the scheduler's own threshold the search goes, both ways."""

Clip = Sequence[np.ndarray]
"""uint8 RGB frames_HW3 at working size, in order."""


def first_frames(clips: Sequence[Iterable[tuple[int, np.ndarray]]]) -> list[list[np.ndarray]]:
    """Copies of the frames that the search looks at; `clips` are pairs of frame number and frame_HW3."""
    chosen = clips[:CLIPS]
    each = FRAMES // len(chosen)
    return [[frame_HW3.copy() for _, frame_HW3 in islice(clip, each)] for clip in chosen]


def calibrate(config: SegmentConfig, clips: Sequence[Clip], interval: int) -> float:
    """The threshold (3 digits) at which ``config``'s scheduler takes as many keys as ``fixed`` at
    ``interval``.

    ``config`` gives scheduler, flow size and so on; its own threshold is where the search starts.
    """
    wanted = sum(-(-len(clip) // interval) for clip in clips)
    scheduler = build_engine(_keys_only(config), "cpu").scheduler
    assert isinstance(scheduler, Scheduler)  # one that looks ahead has a price instead
    start = scheduler.threshold
    low, high = start / 2**OCTAVES, start * 2**OCTAVES
    best, off = start, len(clips) * FRAMES
    for _ in range(STEPS):
        threshold = float(f"{(low * high) ** 0.5:.3g}")
        keys = count_keys(_with_threshold(config, threshold), clips)
        if abs(keys - wanted) < off:
            best, off = threshold, abs(keys - wanted)
        if keys == wanted:
            break
        low, high = (threshold, high) if keys > wanted else (low, threshold)
    return best


def count_keys(config: SegmentConfig, clips: Sequence[Clip]) -> int:
    """Keys that the scheduler of ``config`` takes: decisions need pictures and flow, no net and no masks."""
    engine = build_engine(_keys_only(config), "cpu")
    for number, clip in enumerate(clips):
        state = new_state(config, f"clip {number}", 0)
        for t, frame_HW3 in enumerate(clip):
            engine.step(
                [state], [FrameInput(frame_index=t, pts_s=float(t), is_corrupt=False, frame_HW3=frame_HW3)]
            )
    return engine.stats.keys


def _keys_only(config: SegmentConfig) -> SegmentConfig:
    still = PropagationConfig(
        name="copy", sides="one", flow=config.propagation.flow, flow_size=config.propagation.flow_size
    )
    return replace(config, segmenter="constant", propagation=still)


def _with_threshold(config: SegmentConfig, threshold: float) -> SegmentConfig:
    return replace(config, scheduler=replace(config.scheduler, threshold=threshold))
