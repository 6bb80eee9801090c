"""``--dry-run``: the plan and what it would cost, with nothing written and no Ray started.

Up to ``SAMPLE`` videos are opened (all of them if there are fewer), the rest is extrapolated. The cost of a
key and of a propagated frame is measured here and now, on the first frames of the first video that opens, so
it is an estimate for one core of *this* machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from vidseg_core.config.segment import SegmentConfig
from vidseg_core.config.words import count
from vidseg_core.engine import FrameInput
from vidseg_core.engine.assemble import build_engine, describe_net, new_state
from vidseg_core.engine.bound import Bound
from vidseg_core.kit.manifest import check_claim
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.media import DecodeChild, MediaError, MediaLimits, VideoIndex, usual_bytes, working_size
from vidseg_core.models.fetched import bring
from vidseg_core.pipeline.dial import Dial, needed
from vidseg_core.pipeline.output import manifest_of, open_output
from vidseg_core.pipeline.repair import repair
from vidseg_core.plan.segments import plan_segments, shard_length
from vidseg_core.plan.video_list import VideoInput
from vidseg_core.store.keys import MANIFEST_KEY, SUCCESS_KEY

SAMPLE = 64
_TRIAL_FRAMES = 24


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
    limits = MediaLimits(
        max_pixels=config.media.max_pixels,
        deadline_s=config.media.decode_deadline_s,
        memory_bytes=config.media.memory_bytes,
    )
    sample = _sample(videos, config.seed)
    sums, trial = PlanSums(), None
    child = DecodeChild(limits)
    try:
        for video in sample:
            try:
                index = child.probe(video.uri, config.media.stream)
            except MediaError as problem:
                sums.refused += 1
                why = str(problem).removeprefix(f"{video.uri}: ")
                report.say(f"would be quarantined: {video.uri}: {problem.reason}: {why}")
                continue
            _add(sums, index, config)
            trial = trial or _try_out(child, video, index, config)
    finally:
        child.close()
    if dial is not None:
        dial.say_cost(config, videos, report)
    scale = len(videos) / len(sample) if sample else 1.0
    _print(report, config, len(videos), sums, scale, trial)
    return 3 if sums.refused else 0


def _check_place(
    config: SegmentConfig, videos: Sequence[VideoInput], report: Reporter, dial: Dial | None
) -> None:
    """Refuse now what the run would refuse (other inputs or options than the output's), writing nothing."""
    store = open_output(config.output)
    bring(config.segmenter, config.weights, report)
    net = describe_net(config)
    if net.note:
        report.say(f"note: {net.note}")
    manifest = manifest_of(config, net)
    if dial is not None:  # what will be chosen is not known yet
        dial.check(config, videos, store, net.digest + net.flow_digest)
        return
    if store.exists(MANIFEST_KEY):
        check_claim(store, manifest, videos)
        state = "is complete already" if store.exists(SUCCESS_KEY) else "would be continued"
        report.say(f"the run in {store.root} {state}; the plan below is that of the whole run")


@dataclass(frozen=True, slots=True)
class Trial:
    """One engine, a few frames: seconds per frame of decode and engine, and the share of keys among them."""

    decode_s: float
    engine_s: float
    key_share: float
    frames: int
    bound: Callable[[tuple[int, int]], Bound]
    """What is kept of a segment at most, by working size."""


def _sample(videos: Sequence[VideoInput], seed: int) -> list[VideoInput]:
    if len(videos) <= SAMPLE:
        return list(videos)
    chosen = sorted(Random(seed).sample(range(len(videos)), SAMPLE))
    return [videos[i] for i in chosen]


def _add(sums: PlanSums, index: VideoIndex, config: SegmentConfig) -> None:
    size = working_size(index.width, index.height, config.working_size_spec)
    usual = usual_bytes(index.pix_fmt, (index.height, index.width), size)
    length = shard_length(config.shard_frames, usual)
    plans = plan_segments(index, segment_frames=config.segment_frames, shard_frames=length)
    sums.opened += 1
    sums.largest = max(sums.largest, size, key=math.prod)
    sums.frames += index.frames
    sums.seconds += 0.0 if math.isnan(index.duration_s) else index.duration_s
    sums.segments += len(plans)
    sums.parts += sum(unit.shards for plan in plans for unit in plan.units)


def _try_out(child: DecodeChild, video: VideoInput, index: VideoIndex, config: SegmentConfig) -> Trial | None:
    size = working_size(index.width, index.height, config.working_size_spec)
    plans = plan_segments(index, segment_frames=0, shard_frames=_TRIAL_FRAMES)
    unit = plans[0].units[0].decode_unit(video.uri, index, height=size[0], width=size[1])
    started = time.perf_counter()
    try:
        shard = next(iter(child.decode(unit, _TRIAL_FRAMES)), None)
    except MediaError:
        return None
    if shard is None or not len(shard):
        return None
    decoded = time.perf_counter()
    device = "cpu" if config.device == "auto" else config.device
    engine, state = build_engine(config, device), new_state(config, video.video_id, 0)
    begun, rows = time.perf_counter(), []
    for t in range(len(shard)):
        frame = FrameInput(
            frame_index=int(shard.frame_index[t]),
            pts_s=float(shard.pts_s[t]),
            is_corrupt=bool(shard.is_corrupt[t]),
            picture=shard.pictures[t],
        )
        rows += engine.step([state], [frame])[0]
    rows += engine.finish([state])[0]
    n = len(shard)
    keys = sum(row.is_key for row in rows)
    return Trial((decoded - started) / n, (time.perf_counter() - begun) / n, keys / n, n, engine.bound)


def _print(
    report: Reporter, config: SegmentConfig, videos: int, sums: PlanSums, scale: float, trial: Trial | None
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
    if trial is None:
        report.say("estimate: no video could be decoded, so there is none")
        return
    bound = trial.bound(sums.largest)
    lanes = f", {config.lanes} segments side by side" if config.lanes > 1 else ""
    report.say(
        f"state: of a segment at most {count(bound.frames, 'frame')} and the keys are kept, up to "
        f"{bound.bytes / 1e6:.1f} MB{lanes}",
        state_frames=bound.frames,
        state_bytes=bound.bytes,
    )
    core_s = frames * (trial.decode_s + trial.engine_s)
    report.say(
        f"estimate from {trial.frames} frames here (keys {100 * trial.key_share:.0f} % of them): decode "
        f"{1000 * trial.decode_s:.1f} ms and engine {1000 * trial.engine_s:.1f} ms a frame, so about "
        f"{clock(core_s)} of one core for all; nothing was written",
        core_seconds=round(core_s, 1),
    )
