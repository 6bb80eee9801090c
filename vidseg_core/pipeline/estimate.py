"""``--dry-run``: the plan and what it would cost, with nothing written and no Ray started.

Up to ``SAMPLE`` videos are opened (all of them if there are fewer), the rest is extrapolated. What a frame
costs is measured here and now (`pace`), on the first frames of the first video that opens, so it is an
estimate for one core of *this* machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from vidseg_core.config.segment import SegmentConfig
from vidseg_core.config.words import count
from vidseg_core.engine.assemble import describe_net
from vidseg_core.engine.context import seen_pixels
from vidseg_core.kit.manifest import check_claim
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.media import DecodeChild, MediaError, VideoIndex
from vidseg_core.models.fetched import bring
from vidseg_core.pipeline.decode_stage import limits_of
from vidseg_core.pipeline.dial import Dial, needed
from vidseg_core.pipeline.local import gpus_here
from vidseg_core.pipeline.output import manifest_of, open_output
from vidseg_core.pipeline.pace import FRAMES, Pace, describe_pace, measure_pace
from vidseg_core.pipeline.plan_stage import PlanOptions, check_regions
from vidseg_core.pipeline.repair import repair
from vidseg_core.plan.excerpt import covered_s, frames_of
from vidseg_core.plan.segments import plan_segments
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.store.keys import MANIFEST_KEY, SUCCESS_KEY

SAMPLE = 64


@dataclass(slots=True)
class PlanSums:
    """What the sampled videos add up to."""

    opened: int = 0
    frames: int = 0
    seconds: float = 0.0
    segments: int = 0
    parts: int = 0
    refused: int = 0
    largest: tuple[int, int] = (0, 0)
    """Working size (rows, columns) of the video with most pixels."""


def dry_run(
    config: SegmentConfig, videos: Sequence[VideoInput], report: Reporter, dial: Dial | None = None
) -> int:
    """Print plan and estimate; exit code 0, or 3 when a sampled video would be quarantined."""
    dial = needed(dial, config)
    _check_place(config, videos, report, dial)
    if config.repair:
        repair(open_output(config.output), report, dry=True)
        return 0
    if dial is not None:
        config = dial.say_cost(config, videos, report)
    sample = _sample(videos, config.seed)
    sums, pace, options = PlanSums(), None, PlanOptions.of(config)
    child = DecodeChild(limits_of(config.media))
    try:
        for video in sample:
            try:
                index = child.probe(video.uri, config.media.stream)
                frames = frames_of(video.excerpt, index, video.uri)
                check_regions(config.regions, index, config.working_size_spec, video.uri)
            except MediaError as problem:
                sums.refused += 1
                why = str(problem).removeprefix(f"{video.uri}: ")
                report.say(f"would be quarantined: {video.uri}: {problem.reason}: {why}")
                continue
            if note := options.note_of(index):
                report.say(f"note: {video.uri}: {note}")
            _add(sums, index, frames, options)
            seconds = covered_s(video.excerpt, index)
            sums.seconds += 0.0 if math.isnan(seconds) else seconds
            pace = pace or _try_out(child, video, index, frames, config)
    finally:
        child.close()
    scale = len(videos) / len(sample) if sample else 1.0
    _print(report, config, len(videos), sums, scale, pace)
    return 3 if sums.refused else 0


def _check_place(
    config: SegmentConfig, videos: Sequence[VideoInput], report: Reporter, dial: Dial | None
) -> None:
    """Refuse now what the run would refuse (other inputs or options than the output's), writing nothing."""
    store = open_output(config.output)
    bring(config.segmenter, config.weights, report)
    bring(config.propagation.name, None, report)
    net = describe_net(config)
    if net.note:
        report.say(f"note: {net.note}")
    manifest = manifest_of(config, net)
    if dial is not None:  # what will be chosen is not known yet
        dial.check(config, videos, store, net.digest + net.flow_digest)
    elif store.exists(MANIFEST_KEY):
        check_claim(store, manifest, videos)
    if store.exists(MANIFEST_KEY):
        state = "is complete already" if store.exists(SUCCESS_KEY) else "would be continued"
        report.say(f"the run in {store.root} {state}; the plan below is that of the whole run")


def _sample(videos: Sequence[VideoInput], seed: int) -> list[VideoInput]:
    if len(videos) <= SAMPLE:
        return list(videos)
    chosen = sorted(Random(seed).sample(range(len(videos)), SAMPLE))
    return [videos[i] for i in chosen]


def _add(sums: PlanSums, index: VideoIndex, frames: np.ndarray | None, options: PlanOptions) -> None:
    cut, length = options.segment_frames, options.length_of(index)
    plans = plan_segments(index, segment_frames=cut, shard_frames=length, frames=frames)
    sums.opened += 1
    sums.largest = max(sums.largest, options.size_of(index), key=math.prod)
    sums.frames += sum(plan.frames for plan in plans)
    sums.segments += len(plans)
    sums.parts += sum(unit.shards for plan in plans for unit in plan.units)


def _try_out(
    child: DecodeChild, video: VideoInput, index: VideoIndex, frames: np.ndarray | None, config: SegmentConfig
) -> Pace | None:
    options = PlanOptions.of(config)
    plans = plan_segments(index, segment_frames=0, shard_frames=FRAMES, frames=frames)
    unit = options.unit_of(plans[0].units[0], video, index)
    try:
        shard = next(iter(child.decode(unit, FRAMES)), None)
    except MediaError:
        return None
    if shard is None or not len(shard):
        return None
    return measure_pace(config, "cuda" if gpus_here(config) else "cpu", video.video_id, shard)


def _print(
    report: Reporter, config: SegmentConfig, videos: int, sums: PlanSums, scale: float, pace: Pace | None
) -> None:
    frames = int(sums.frames * scale)
    about = "about " if scale > 1 else ""
    report.say(f"dry run: {config.describe()}")
    report.say(
        f"plan: {count(videos, 'video')}, {sums.refused} of {sums.opened + sums.refused} opened "
        "would be quarantined; "
        f"{about}{frames:,} frames ({clock(sums.seconds * scale)} of video) in {about}"
        f"{int(sums.segments * scale):,} segments and {int(sums.parts * scale):,} parts -> {config.output}",
        videos=videos,
        frames=frames,
    )
    if pace is None:
        report.say("estimate: no video could be decoded, so there is none")
        return
    bound = pace.bound(sums.largest)
    lanes = f", {config.lanes} segments side by side" if config.lanes > 1 else ""
    kept = f"at most {count(bound.frames, 'frame')} and the keys are" if bound.frames else "the last key is"
    report.say(
        f"state: of a segment {kept} kept, up to {bound.bytes / 1e6:.1f} MB{lanes}",
        state_frames=bound.frames,
        state_bytes=bound.bytes,
    )
    if config.regions.on:
        _say_crops(report, config, sums.largest)
    estimate, *beside = describe_pace(pace, frames, config.scheduler.name)
    report.say(estimate, core_seconds=round(frames * pace.frame_s, 1))
    for line in beside:
        report.say(line, every_core_seconds=round(frames * pace.every_frame_s, 1), fidelity=pace.fidelity)


def _say_crops(report: Reporter, config: SegmentConfig, size: tuple[int, int]) -> None:
    """What the regions of the largest frames are."""
    crops = config.regions.crops(size)
    shapes = sorted({crop.shape for crop in crops}, key=math.prod)
    pixels = seen_pixels([True] * len(crops), config.regions, size) / math.prod(size)
    report.say(
        f"regions: {config.regions.grid}, so {len(crops)} crops of a frame of {size[0]}x{size[1]}, of "
        f"{' and '.join(f'{rows}x{columns}' for rows, columns in shapes)} with overlap "
        f"{config.regions.overlap}; a frame of which all are keys costs {pixels:.2f} times its pixels, in "
        f"calls of up to {count(config.key_batch, 'crop')} of one size",
        crops=len(crops),
        crop_pixels=round(pixels, 4),
    )
