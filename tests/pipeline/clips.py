"""Small real video files for the pipeline's tests, encoded at test time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def moving_disc(frames: int, height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """frames_THW3 uint8: a red disc and a blue square wander over a textured ground."""
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.integers(60, 190, (height, width, 3), dtype=np.uint8), (0, 0), 3)
    ground = np.repeat(ground.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    clip = np.empty((frames, height, width, 3), dtype=np.uint8)
    for t in range(frames):
        picture = ground.copy()
        x = int(width * (0.5 + 0.35 * np.sin(0.05 * t + seed)))
        y = int(height * (0.5 + 0.3 * np.cos(0.07 * t + seed)))
        cv2.circle(picture, (x, y), height // 6, (220, 30, 30), -1)
        cv2.rectangle(picture, (width - x - 12, 10), (width - x + 12, 34), (30, 40, 230), -1)
        clip[t] = picture
    return clip


def write_video(
    path: Path, frames_THW3: np.ndarray, *, fps: int = 25, gop: int = 12, bframes: int = 2
) -> Path:
    """Encode as h264 (mpeg4 where there is no x264) with B-frames and a key frame every ``gop`` frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames_THW3.shape[2], frames_THW3.shape[1], "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = bframes
        stream.codec_context.thread_count = 1
        if codec == "libx264":
            stream.options = {"preset": "veryfast", "crf": "18", "sc_threshold": "0", "bf": str(bframes)}
        for number, picture in enumerate(frames_THW3):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def looped(source: Path, path: Path, turns: int) -> Path:
    """The packets of a video, so many times over: hours of footage without encoding them."""
    with av.open(str(source)) as loop, av.open(str(path), "w") as out:
        stream = loop.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [p for p in loop.demux(stream) if p.dts is not None and p.pts is not None]
        times = [(p.pts, p.dts) for p in packets]
        assert stream.time_base is not None and stream.average_rate is not None
        step = round(len(packets) / stream.average_rate / stream.time_base)
        for turn in range(turns):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                packet.pts, packet.dts = pts + turn * step, dts + turn * step  # type: ignore[operator]
                packet.stream = copy
                out.mux(packet)
    return path


def make_corpus(folder: Path, lengths: tuple[int, ...] = (50, 37, 83)) -> Path:
    """One clip per length in ``folder``."""
    for number, frames in enumerate(lengths):
        write_video(folder / f"clip {number} ä.mp4", moving_disc(frames, seed=number))
    return folder
