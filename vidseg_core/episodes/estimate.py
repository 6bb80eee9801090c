"""``build-episodes --dry-run``: how many tables, how large, how long, from a measured sample.

Model: building costs so much per frame (read it, run N), per pair (flow, warp, features, quality) and per
frame that is put together from two sides; all three are measured here and now on a few frames of one clip, so
the estimate is for one core of *this* machine (processor time, so that others' work does not
count). Nothing is written and no Ray is started.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from vidseg_core.config.build_episodes import LABELS, BuildEpisodesConfig
from vidseg_core.config.words import count
from vidseg_core.datasets.clip_reader import ClipReader
from vidseg_core.datasets.records import DatasetError, Record
from vidseg_core.episodes.class_counts import parts_to_count
from vidseg_core.episodes.making import make_builder
from vidseg_core.episodes.sources import (
    Unit,
    chosen_videos,
    dataset_units,
    in_regions,
    read_unit,
    video_units,
)
from vidseg_core.episodes.table import EpisodeError
from vidseg_core.episodes.table_builder import Refused, TableBuilder
from vidseg_core.kit.progress import Reporter, clock
from vidseg_core.media import MediaError
from vidseg_core.scheduling.lookahead_window import LOOKAHEAD_SIZE

SAMPLE_FRAMES = 24
SAMPLE_HORIZON = 10
SAMPLE_VIDEOS = 64
_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a segment, or a whole set, takes."""

    frames: int = 0
    pairs: int = 0
    """Flows, both directions."""
    joins: int = 0
    """Frames put together from two sides."""
    table_bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            frames=self.frames + other.frames,
            pairs=self.pairs + other.pairs,
            joins=self.joins + other.joins,
            table_bytes=self.table_bytes + other.table_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds of one core."""

    per_frame: float
    per_pair: float
    per_join: float

    def seconds(self, work: Work) -> float:
        return work.frames * self.per_frame + work.pairs * self.per_pair + work.joins * self.per_join


def work_of(frames: int, *, horizon: int, key_stride: int, two_sided_stride: int, features: int) -> Work:
    """Counted, not measured."""
    keys = np.arange(0, frames, key_stride)
    pairs = int(np.minimum(horizon, frames - 1 - keys).sum())
    joins = 0
    if two_sided_stride:
        grid = np.arange(0, frames, two_sided_stride)
        pairs += int(np.minimum(horizon, grid).sum())
        for length in range(two_sided_stride, min(horizon, frames - 1) + 1, two_sided_stride):
            joins += int((grid + length < frames).sum()) * (length - 1)
    columns = 1 + features + bool(two_sided_stride)
    size = 4 * frames * (horizon + 1) * columns
    return Work(frames=frames, pairs=pairs, joins=joins, table_bytes=size)


def dry_run(config: BuildEpisodesConfig, classes: tuple[str, ...], report: Reporter) -> int:
    """Print what the set would take; exit code 0."""
    units, scale = _units(config, report)
    units = in_regions(units, config.regions)
    making = make_builder(config, classes, "cpu")
    features = len(making.builder.features.names)
    total = sum(
        (
            work_of(
                unit.frames,
                horizon=config.horizon,
                key_stride=config.key_stride,
                two_sided_stride=config.two_sided_stride,
                features=features,
            )
            for unit in units
            if unit.frames >= config.min_frames
        ),
        Work(),
    )
    maps = sum(_map_bytes(making.builder, unit.frames) for unit in units if unit.frames >= config.min_frames)
    total = replace(total, table_bytes=total.table_bytes + maps)
    if config.pictures:
        total = replace(total, table_bytes=total.table_bytes + total.frames * 2 * LOOKAHEAD_SIZE**2)
    short = sum(unit.frames < config.min_frames for unit in units)
    about = "about " if scale > 1 else ""
    report.say(f"dry run: {config.describe()}")
    report.say(
        f"plan: {about}{count(round(len(units) * scale), 'segment')}, {about}{round(total.frames * scale):,} "
        f"frames, {total.pairs * scale:,.0f} pairs and {total.joins * scale:,.0f} two-sided frames; "
        f"{short} segments shorter than --min_frames {config.min_frames}; "
        f"tables of {total.table_bytes * scale / 2**20:,.1f} MiB -> {config.output}",
        segments=round(len(units) * scale),
        pairs=round(total.pairs * scale),
        table_bytes=round(total.table_bytes * scale),
    )
    pace = _pace(config, making.builder, [u for u in units if u.frames >= config.min_frames], report)
    if pace is None:
        report.say("estimate: no clip gave a sample, so there is none")
        return 0
    counted = parts_to_count(units, units, config)
    again = sum(unit.frames for unit in counted)
    seconds = pace.seconds(total + Work(frames=again)) * scale
    who = "labels are read" if config.segmenter == LABELS else "N runs"
    twice = (
        f" ({who} twice on {about}{round(again * scale):,} frames: clips are weighed first)" if again else ""
    )
    report.say(
        f"estimate from {SAMPLE_FRAMES} frames here: {1e3 * pace.per_frame:.1f} ms a frame, "
        f"{1e3 * pace.per_pair:.2f} ms a pair, {1e3 * pace.per_join:.2f} ms a two-sided frame, so about "
        f"{clock(seconds)} of one core for all{twice}; nothing was written",
        core_seconds=round(seconds, 1),
    )
    return 0


def _map_bytes(builder: TableBuilder, frames: int) -> int:
    """Maps of pairs, or at most so much of pictures to make them from."""
    kept, maps = builder.kept_maps(frames), builder.features.maps
    made = maps is not None and len(kept) < len(maps.names)
    return 2 * sum(map(math.prod, kept.values())) + made * frames * 3 * builder.options.flow_size**2


def _units(config: BuildEpisodesConfig, report: Reporter) -> tuple[list[Unit], float]:
    """Units of all data sets and of a sample of the videos, and how many times as much there is of them."""
    units = dataset_units(config)
    videos = chosen_videos(config, len({unit.clip for unit in units}))
    sample = videos[:SAMPLE_VIDEOS]
    reader, opened = ClipReader(), []
    try:
        for video in sample:
            try:
                opened += video_units(config, video, reader)
            except (DatasetError, MediaError) as problem:
                report.say(f"would be quarantined: {problem}")
    finally:
        reader.close()
    scale = len(videos) / len(sample) if sample and not units else 1.0
    return units + opened * (len(videos) // len(sample) if sample and units else 1), scale


def _pace(
    config: BuildEpisodesConfig, builder: TableBuilder, units: Sequence[Unit], report: Reporter
) -> Pace | None:
    for unit in units[:_TRIES]:
        started = time.perf_counter()  # decoding is another process
        try:
            frames = list(islice(read_unit(unit, config.working_size, config.split), SAMPLE_FRAMES))
            reading = (time.perf_counter() - started) / max(1, len(frames))
            return _measured(config, builder, frames, reading)
        except (Refused, DatasetError) as problem:
            report.say(f"no sample from {unit.clip}: {problem}")
    return None


def _measured(
    config: BuildEpisodesConfig, builder: TableBuilder, frames: Sequence[Record], reading: float
) -> Pace:
    """Three builds of the sample: a few pairs, many pairs, and with two sides."""
    _timed(builder, frames, 1, 0)  # warm
    few_s = _timed(builder, frames, 1, 0)
    many_s = _timed(builder, frames, SAMPLE_HORIZON, 0)
    few, many = (_sample_work(len(frames), horizon, 0) for horizon in (1, SAMPLE_HORIZON))
    per_pair = max(0.0, many_s - few_s) / max(1, many.pairs - few.pairs)
    per_frame = max(0.0, few_s - few.pairs * per_pair) / len(frames)
    per_join = 0.0
    if config.two_sided_stride:
        both_s, both = (
            _timed(builder, frames, SAMPLE_HORIZON, 1),
            _sample_work(len(frames), SAMPLE_HORIZON, 1),
        )
        rest = both_s - many_s - (both.pairs - many.pairs) * per_pair
        per_join = max(0.0, rest) / max(1, both.joins)
    return Pace(per_frame=per_frame + reading, per_pair=per_pair, per_join=per_join)


def _timed(builder: TableBuilder, frames: Sequence[Record], horizon: int, two_sided_stride: int) -> float:
    options = replace(
        builder.options, horizon=horizon, key_stride=1, two_sided_stride=two_sided_stride, min_frames=2
    )
    sample = builder.with_options(options)
    started = time.process_time()
    sample.build("sample", 0, frames)
    return time.process_time() - started


def _sample_work(frames: int, horizon: int, two_sided_stride: int) -> Work:
    if frames < 2:
        raise EpisodeError("a sample of one frame says nothing")
    return work_of(frames, horizon=horizon, key_stride=1, two_sided_stride=two_sided_stride, features=1)
