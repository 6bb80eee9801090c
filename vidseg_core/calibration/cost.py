"""``--dry-run``: what a calibration would take here, from a few frames of its first run."""

from __future__ import annotations

import time
from collections.abc import Sequence

from vidseg_core.calibration.calibrate import sample_units
from vidseg_core.calibration.tasks import longest_interval, sample_builder
from vidseg_core.config.segment import SegmentConfig
from vidseg_core.episodes.build import TableOptions
from vidseg_core.episodes.estimate import work_of
from vidseg_core.episodes.sources import read_unit
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.plan.video_list import VideoInput

_TRIAL_FRAMES = 16
_SCHEDULES = 25
"""Schedules whose intervals have to be put together, roughly: many have intervals in common."""


def say_cost(config: SegmentConfig, inputs: Sequence[VideoInput], report: Reporter) -> None:
    """``--dry-run``: what the calibration would take here, from a few frames of the first run."""
    units = sample_units(config, inputs, report)
    if not units:
        report.say("calibration: no video has frames enough to look at")
        return
    work = [
        work_of(u.frames, horizon=longest_interval(config), key_stride=1, two_sided_stride=0, features=4)
        for u in units
    ]
    frames, pairs = sum(w.frames for w in work), sum(w.pairs for w in work)
    two = _SCHEDULES * frames if config.propagation.sides == "two" else 0
    builder = sample_builder(config, "cpu").with_options(
        TableOptions(quality="accuracy", horizon=8, min_frames=2)
    )
    sample = list(read_unit(units[0], str(config.working_size), "all"))[:_TRIAL_FRAMES]
    started = time.perf_counter()
    seen = builder.see(sample)
    net_s = (time.perf_counter() - started) / len(sample)
    started = time.perf_counter()
    for k in range(len(sample) - 1):
        builder.pairs(seen, k)
    pair_s = (time.perf_counter() - started) / (8 * len(sample) - 36)
    seconds = frames * net_s + (pairs + 2 * two) * pair_s
    audit_s = config.calibration.audit_frames * net_s
    report.say(
        f"calibration would look at {len(units)} runs, {frames:,} frames: the net {1000 * net_s:.0f} ms on "
        "each, "
        f"{pairs:,} pairs and up to {two:,} two-sided frames at {1000 * pair_s:.1f} ms a flow; about "
        f"{clock(seconds)} of one core, and {clock(audit_s)} for the audit at the end. The estimate below is "
        f"for --scheduler.interval {config.scheduler.interval}; what will be chosen is not known yet",
        calibration_core_seconds=round(seconds, 1),
    )
