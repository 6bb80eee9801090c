"""Two ways to the frames of a file: ours, unit by unit, and one plain run of the decoder from the start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np

from vidseg_core.media import MediaLimits, VideoIndex, decode_unit, probe, working_size
from vidseg_core.media.pictures import write_rgb
from vidseg_core.plan import plan_segments


@dataclass
class Frames:
    """All frames of a file in order."""

    numbers: list[int]
    seconds: list[float]
    corrupt: list[bool]
    pixels: list[np.ndarray]
    errors: list[str]

    @property
    def count(self) -> int:
        return len(self.numbers)

    def same_pixels(self, other: Frames) -> bool:
        return self.count == other.count and all(
            np.array_equal(a, b) for a, b in zip(self.pixels, other.pixels, strict=True)
        )


def by_units(
    path: Path,
    *,
    unit_frames: int = 1,
    shard_frames: int = 7,
    index: VideoIndex | None = None,
    size: int = 96,
    limits: MediaLimits | None = None,
) -> Frames:
    """Frames of `path` through probe, plan and decode; `unit_frames` 1: as many units as can be."""
    index = index or probe(str(path))
    height, width = working_size(index.width, index.height, size)
    out = Frames([], [], [], [], [])
    plan = plan_segments(index, segment_frames=0, shard_frames=shard_frames, unit_frames=unit_frames)
    for unit in (unit for segment in plan for unit in segment.units):
        request = unit.decode_unit(str(path), index, height=height, width=width)
        shards = list(decode_unit(request, shard_frames=shard_frames, limits=limits))
        assert len(shards) == unit.shards
        for shard in shards:
            out.numbers += shard.frame_index.tolist()
            out.seconds += shard.pts_s.tolist()
            out.corrupt += shard.is_corrupt.tolist()
            out.pixels += list(shard.frames_THW3)
            out.errors += [shard.error] if shard.error else []
    return out


def by_one_run(path: Path, index: VideoIndex, size: int = 96) -> Frames:
    """What FFmpeg delivers when it decodes the first video stream from its start, errors ending it."""
    height, width = working_size(index.width, index.height, size)
    out = Frames([], [], [], [], [])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        try:
            for number, frame in enumerate(container.decode(stream)):
                pixels_HW3 = np.empty((height, width, 3), np.uint8)
                write_rgb(frame, index.rotation, pixels_HW3)
                out.numbers.append(number)
                out.seconds.append(frame.time if frame.time is not None else -1.0)
                out.corrupt.append(frame.is_corrupt)
                out.pixels.append(pixels_HW3)
        except av.error.FFmpegError as error:
            out.errors.append(str(error))
    return out
