"""The frames of a source video, exactly as the job numbers and decodes them: for overlays and pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vidseg_core.media import MediaLimits, child_for_this_process, working_size
from vidseg_core.plan.segments import plan_segments


def source_frames(uri: str, longest_side: int, stream: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """(frame number, uint8 [H, W, 3] RGB) of every frame of a video, numbered as `vidseg segment` does.

    `stream`: as the video's row says; None: the stream that is the video.
    """
    child = child_for_this_process(MediaLimits())
    index = child.probe(uri, stream)
    height, width = working_size(index.width, index.height, longest_side)
    for segment in plan_segments(index, segment_frames=0, shard_frames=16):
        for planned in segment.units:
            unit = planned.decode_unit(uri, index, height=height, width=width)
            for shard in child.decode(unit, 16):
                yield from zip(shard.frame_index.tolist(), shard.frames_THW3, strict=True)
