"""Streams whose true motion is known: a textured picture that moves by whole pixels a frame."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

SPEED = (3, 2)
"""Pixels that the view moves each frame, right and down: what is seen moves the other way."""


def panned(
    frames: int, height: int = 64, width: int = 96, speed: tuple[int, int] = SPEED
) -> list[np.ndarray]:
    """RGB pictures."""
    across, down = speed
    size = (height + down * frames, width + across * frames, 3)
    noise = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    ground = cv2.GaussianBlur(noise, (0, 0), 2.0).astype(np.int32)
    ground = np.clip((ground - 128) * 4 + 128, 0, 255).astype(np.uint8)
    return [
        ground[down * t : down * t + height, across * t : across * t + width].copy() for t in range(frames)
    ]


def encoded(
    path: Path,
    pictures: Sequence[np.ndarray],
    codec: str = "libx264",
    *,
    bframes: int = 0,
    gop: int = 250,
    rotation: int = 0,
    x264: str = "scenecut=0:ref=1",
    times: Sequence[int] | None = None,
) -> Path:
    """The pictures as a stream of this codec. `times`: when each is shown, in 25ths of a second."""
    height, width = pictures[0].shape[:2]
    options = {"threads": "1", "g": str(gop)} | ({"bf": str(bframes)} if codec != "libvpx-vp9" else {})
    if codec == "libx264":
        options |= {"crf": "16", "preset": "medium", "x264-params": x264}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number if times is None else times[number], Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
