"""Two ways to the frames of a file: ours, unit by unit, and one plain decode from the start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.container
import av.error
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

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
    refused: int = 0
    """Packets that the decoder refused."""

    @property
    def count(self) -> int:
        return len(self.numbers)

    def same_times(self, other: Frames) -> bool:
        return np.array_equal(self.seconds, other.seconds, equal_nan=True)

    def same_pixels(self, other: Frames) -> bool:
        return self.count == other.count and all(
            np.array_equal(a, b) for a, b in zip(self.pixels, other.pixels, strict=True)
        )


def by_units(
    path: Path | str,
    *,
    unit_frames: int = 1,
    shard_frames: int = 7,
    index: VideoIndex | None = None,
    size: int = 96,
    limits: MediaLimits | None = None,
    maps_hdr: bool = False,
) -> Frames:
    """Frames of `path` through probe, plan and decode. `unit_frames` 1: as many units as can be."""
    index = index or probe(str(path))
    height, width = working_size(index.width, index.height, size)
    out = Frames([], [], [], [], [])
    plan = plan_segments(index, segment_frames=0, shard_frames=shard_frames, unit_frames=unit_frames)
    for unit in (unit for segment in plan for unit in segment.units):
        request = unit.decode_unit(str(path), index, height=height, width=width, maps_hdr=maps_hdr)
        shards = list(decode_unit(request, shard_frames=shard_frames, limits=limits))
        assert len(shards) == unit.shards
        for shard in shards:
            out.numbers += shard.frame_index.tolist()
            out.seconds += shard.pts_s.tolist()
            out.corrupt += shard.is_corrupt.tolist()
            out.pixels += list(shard.frames_THW3)
            out.errors += [shard.error] if shard.error else []
    return out


def plainly(path: Path, index: VideoIndex, size: int = 96) -> Frames:
    """The reference: all packets of the stream in file order, each decoded, one that raises skipped and
    counted, the decoder drained at the end. `index`: which stream, and the size of the pictures."""
    height, width = working_size(index.width, index.height, size)
    out = Frames([], [], [], [], [])
    with av.open(str(path), metadata_errors="replace") as container:
        stream = next(s for s in container.streams.video if s.index == index.stream)
        stream.codec_context.thread_count = 1
        for frame in _frames(container, stream, out):
            pixels_HW3 = np.empty((height, width, 3), np.uint8)
            write_rgb(frame, index.rotation, pixels_HW3)
            out.numbers.append(out.count)
            out.seconds.append(float("nan") if frame.time is None else frame.time)
            out.corrupt.append(frame.is_corrupt)
            out.pixels.append(pixels_HW3)
    return out


def _frames(container: av.container.InputContainer, stream: VideoStream, out: Frames) -> Iterator[VideoFrame]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:  # the file cannot be read any further
            out.errors.append(str(error))
            packet = None
        except IndexError:  # a stream joined that the header does not know, and the file has ended
            return
        try:
            yield from stream.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            out.refused += 1
        if packet is None:
            return
