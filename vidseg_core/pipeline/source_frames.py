"""The frames of a source video, exactly as the job numbers and decodes them: for overlays and pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vidseg_core.config.excerpt import WHOLE, Excerpt
from vidseg_core.media import MediaLimits, child_for_this_process, working_size
from vidseg_core.plan.excerpt import frames_of
from vidseg_core.plan.segments import plan_segments


def source_frames(
    uri: str,
    longest_side: int,
    stream: int | None = None,
    excerpt: Excerpt = WHOLE,
    *,
    as_shown: bool = False,
    maps_hdr: bool = True,
    limits: MediaLimits | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """(frame number, uint8 [H, W, 3] RGB) of the frames of a video, numbered as `vidseg segment` does.

    `stream`: as the video's row says; None: the stream that is the video. `excerpt`: those that are taken.
    `as_shown`: as masks of the source's size lie on them (aspect ratio, mirrored), not as a net sees them.
    """
    child = child_for_this_process(limits)
    index = child.probe(uri, stream)
    shown = index.shown if as_shown else (index.height, index.width)
    height, width = working_size(shown[1], shown[0], longest_side)
    step = -1 if as_shown and index.mirrored else 1
    frames = frames_of(excerpt, index, uri)
    for segment in plan_segments(index, segment_frames=0, shard_frames=16, frames=frames):
        for planned in segment.units:
            unit = planned.decode_unit(uri, index, height=height, width=width, maps_hdr=maps_hdr)
            for shard in child.decode(unit, 16):
                frames_THW3 = shard.frames_THW3[:, :, ::step]
                yield from zip(shard.frame_index.tolist(), frames_THW3, strict=True)
