"""Where the stages of a run are executed: here (`local`), or on Ray, and which of the two it is to be.

Model: Ray takes seconds to start and then works on many segments at once. What a plan takes one core is known
well enough from its frames and from one small call of N. Invariant: masks, rows and verdicts are the same
either way, so the choice is about time alone, and a run may be continued the other way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from vidseg_core.config.segment import SegmentConfig
from vidseg_core.config.words import count
from vidseg_core.engine.trial import usual_pixels

if TYPE_CHECKING:
    import pyarrow as pa

    from vidseg_core.pipeline.plan_stage import OpenSegment
    from vidseg_core.plan.video_list import VideoInput

MOST_VIDEOS = 64
"""A corpus of more is not opened to find out whether it is small."""
RAY_START_S = 12.0
"""What starting Ray and its workers takes beyond a local run (`benchmarks.startup`)."""
_FRAME_S = 0.004
"""What a frame takes one core besides N: decoding, flow, a part of a file."""
_USUAL_INTERVAL = 12


class Planning(Protocol):
    """The plan of a wave on its way."""

    @property
    def videos(self) -> Sequence[VideoInput]: ...

    def pump(self) -> None:
        """Do a little of it, without waiting, while the wave before it runs."""
        ...

    def tables(self, stop: Callable[[], bool] = ...) -> Iterator[pa.Table]:
        """The planner's answers, in order; no more of them once ``stop()``."""
        ...

    def close(self) -> None:
        """Give up what has not been read."""
        ...


class Executor(Protocol):
    """Runs the segments of one wave after another."""

    device: str
    branches: int
    """Engines that are fed side by side."""
    wave_videos: int
    """Videos that are planned together."""
    lost: list[Exception]
    """Why pieces of it died that it does not replace, one entry each."""
    stepped: Callable[[int], None]
    """Called with the number of frames that engines of this process have stepped since."""

    def planning(self, videos: Sequence[VideoInput]) -> Planning:
        """The plan of some videos."""
        ...

    def receipts(self, segments: Sequence[OpenSegment]) -> Generator[pa.Table]:
        """Tables of `rows.Receipt` as parts are committed. Closing it ends all that is under way."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Which executor, and why."""

    executor: Literal["local", "ray"]
    why: str

    def __str__(self) -> str:
        return f"executor {self.executor}: {self.why}"


def settled(config: SegmentConfig) -> Place | None:
    """What options and surroundings say; None: it depends on the plan."""
    address = config.ray_address or os.environ.get("RAY_ADDRESS")
    if config.executor != "auto":
        return Place(config.executor, f"--executor {config.executor}")
    if address:
        return Place("ray", f"the cluster at {address}")
    for option in ("workers", "decoders"):
        if getattr(config, option) > 1:
            return Place("ray", f"--{option} {getattr(config, option)}")
    if (ray := sys.modules.get("ray")) is not None and ray.is_initialized():
        return Place("ray", "it is up in this process")
    return None


def may_be_local(config: SegmentConfig) -> bool:
    """Whether a command's work may come to be done by its own process, as far as is known beforehand."""
    place = settled(config)
    return not config.dry_run and (place is None or place.executor == "local")


def by_plan(
    config: SegmentConfig, segments: Sequence[OpenSegment], *, pixel_s: float, gpus: int, cores: int
) -> Place:
    """What the open segments of a small corpus say. ``pixel_s``: seconds of N per pixel on one core."""
    if gpus > 1:
        return Place("ray", f"{gpus} GPUs")
    frames = sum(segment.frames for segment in segments)
    what = f"{count(frames, 'frame')} in {count(len(segments), 'segment')}"
    at_once = min(cores // config.threads, -(-len(segments) // config.lanes))
    if at_once <= 1:
        return Place("local", f"{what}, nothing to run side by side")
    net_s = 0.0 if gpus else pixel_s * _key_share(config) * max(s.pixels for s in segments)
    seconds = frames * (_FRAME_S + net_s)
    saved = seconds * (1 - 1 / at_once)
    if saved <= RAY_START_S:
        return Place("local", f"{what}, too few to start Ray for")
    return Place("ray", f"{what}, about {seconds:.0f} s for one core")


def _key_share(config: SegmentConfig) -> float:
    """Of the frames' pixels N sees so many, overlap of regions counted; roughly."""
    scheduler, interval = config.scheduler, _USUAL_INTERVAL
    if scheduler.name in ("fixed", "random"):
        interval = scheduler.interval
    pixels = usual_pixels(config.regions, config.working_size_spec)
    return pixels if scheduler.name == "every" else pixels / interval
