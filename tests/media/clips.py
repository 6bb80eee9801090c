"""Small videos made at test time: one builder per property, so that the tests need no data.

Every frame differs from its neighbours everywhere (a texture that slides, a counter drawn as a bar), so a
frame in the wrong place cannot go unnoticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

DATA = Path(os.environ.get("VIDSEG_DATA") or Path(__file__).parents[2] / "../shared/data")
"""Real material, used where it is at hand."""


def picture(number: int, height: int, width: int) -> np.ndarray:
    """uint8 RGB frame `number`."""
    y, x = np.mgrid[:height, :width]
    red = (x * 3 + number * 7) % 256
    green = (y * 5 + number * 3) % 256
    blue = np.where(x * 64 < width * (number % 64), 255, (x + y + number * 11) % 200)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def write(
    path: Path,
    *,
    codec: str = "libx264",
    frames: int = 60,
    width: int = 96,
    height: int = 64,
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    rotation: int = 0,
    alter: Callable[[Any], Any] = lambda packet: None,
    audio: bool = False,
) -> Path:
    """Encodes `frames` pictures; `pts` in units of 1/(40*rate) s; `alter` may change each packet, or give
    another in its place."""
    base = Fraction(1, 40 * rate)
    chosen = options or ({"x264-params": STEADY} if codec == "libx264" else {})
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options={"threads": "1", **chosen})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = base if "mpeg" not in codec else Fraction(1, rate)
        if rotation:
            stream.set_display_rotation(rotation)
        sound: Any = container.add_stream("aac", rate=48000, layout="mono") if audio else None
        step = 40 if "mpeg" not in codec else 1
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            frame = frame.reformat(format=pix_fmt, threads=1)
            frame.time_base = stream.codec_context.time_base
            frame.pts = pts[number] if pts else number * step
            for packet in stream.encode(frame):
                container.mux(alter(packet) or packet)
            if sound is not None:
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                silence.sample_rate, silence.pts = 48000, number * 1024
                container.mux(sound.encode(silence))
        for packet in stream.encode(None):
            container.mux(alter(packet) or packet)
    return path


def with_bytes(packet: Any, data: bytes) -> av.Packet:
    """The packet with other contents, of any length."""
    other = av.Packet(data)
    other.pts, other.dts, other.time_base, other.stream = (
        packet.pts,
        packet.dts,
        packet.time_base,
        packet.stream,
    )
    other.is_keyframe, other.duration = packet.is_keyframe, packet.duration
    return other


STEADY = "no-mbtree=1"
"""Without mbtree x264 encodes small pictures alike every time."""


def x264(parameters: str) -> dict[str, str]:
    """Encoder options."""
    return {"preset": "veryfast", "x264-params": f"{STEADY}:{parameters}"}


X264 = x264("keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=0")
X264_OPEN = x264("keyint=12:min-keyint=6:scenecut=0:bframes=3:open-gop=1")
X265_OPEN = {
    "preset": "ultrafast",
    "x265-params": "keyint=12:min-keyint=6:scenecut=0:bframes=3:open-gop=1"
    ":pools=none:frame-threads=1:log-level=none",
}


def pts_forgotten(packet: Any) -> None:
    """What a muxer does that knows no reordering: shows every packet when it is decoded."""
    packet.pts = packet.dts


def uneven(frames: int) -> list[int]:
    """Strictly increasing times with gaps of very different length."""
    steps = np.random.default_rng(7).integers(5, 160, size=frames)
    return np.cumsum(steps).tolist()


def vp8_hidden(packet: Any) -> None:
    """Clears `show_frame` of every eighth packet (never a key): a reference that is not shown."""
    data = bytearray(memoryview(packet))
    vp8_hidden.count += 1  # type: ignore[attr-defined]
    if data[0] & 1 and vp8_hidden.count % 8 == 0:  # type: ignore[attr-defined]
        data[0] &= ~0x10
        packet.update(bytes(data))


vp8_hidden.count = 0  # type: ignore[attr-defined]

VPX = {"deadline": "realtime", "cpu-used": "8", "g": "12"}
ALT_REF = {"deadline": "good", "cpu-used": "8", "g": "24", "auto-alt-ref": "1", "lag-in-frames": "16"}
SHORT_GOPS = x264("keyint=2:min-keyint=1:bframes=3:open-gop=0")
REFRESH = x264("keyint=12:intra-refresh=1:bframes=0")
WOVEN = {**X264, "x264-params": X264["x264-params"] + ":tff=1"}
LATE = [20_000 + 40 * number for number in range(60)]

INTACT: dict[str, dict[str, Any]] = {
    "b_frames.mp4": dict(options=X264),
    "open_gop.mkv": dict(options=X264_OPEN),
    "open_gop.mp4": dict(options=X264_OPEN),
    "open_gop.ts": dict(options=X264_OPEN),
    "open_gop_hevc.mp4": dict(codec="libx265", options=X265_OPEN),
    "open_gop_hevc.mkv": dict(codec="libx265", options=X265_OPEN),
    "uneven.mp4": dict(options=X264, pts=uneven(60)),
    "uneven.mkv": dict(options=X264_OPEN, pts=uneven(60)),
    "late_start.mp4": dict(options=X264, pts=LATE),
    "late_start.mkv": dict(options=X264, pts=LATE),
    "ten_bit.mkv": dict(codec="libx265", pix_fmt="yuv420p10le", options=X265_OPEN),
    "twelve_bit.mp4": dict(codec="libx265", pix_fmt="yuv420p12le", options=X265_OPEN),
    "gray.mkv": dict(pix_fmt="gray", options=X264),
    "full_chroma.mp4": dict(pix_fmt="yuv444p", options=X264),
    "odd_size.mkv": dict(pix_fmt="yuv444p", width=97, height=63, options=X264),
    "odd_size.webm": dict(codec="libvpx-vp9", width=97, height=63, options=VPX),
    "hidden_frames.webm": dict(codec="libvpx", options=VPX, alter=vp8_hidden),
    "alt_ref_vp9.webm": dict(codec="libvpx-vp9", frames=80, options=ALT_REF),
    "interlaced.ts": dict(codec="mpeg2video", options={"flags": "+ildct+ilme", "g": "12", "bf": "2"}),
    "interlaced_h264.mkv": dict(options=WOVEN),
    "mpeg4.avi": dict(codec="mpeg4", options={"g": "12", "bf": "0"}),
    "mpeg4_b.avi": dict(codec="mpeg4", options={"g": "12", "bf": "2"}),
    "program_stream.mpg": dict(codec="mpeg2video", options={"g": "12", "bf": "2"}),
    "short_gops.mp4": dict(options=SHORT_GOPS),
    "no_reordering_known.mp4": dict(options=X264, alter=pts_forgotten),
    "moving_refresh.mkv": dict(options=REFRESH),
    "turned.mov": dict(options=X264, rotation=90, width=96, height=48),
    "lossless.mkv": dict(codec="ffv1", pix_fmt="bgr0"),
    "fragments.mp4": dict(options=X264, container_options={"movflags": "frag_keyframe+empty_moov"}),
    "elementary.h264": dict(options=X264),
    "elementary.hevc": dict(codec="libx265", options=X265_OPEN),
}
"""Intact videos: name -> arguments of `write`."""


def make(folder: Path, name: str) -> Path:
    """Writes one of `INTACT`."""
    return write(folder / name, **INTACT[name])
