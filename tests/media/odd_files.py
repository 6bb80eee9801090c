"""Files as they are found: joined, shifted, mislabelled, with palettes, covers and damage, by recipe.

Model: a `Recipe` names a codec, a container and what is odd about the file; `make` writes it. The same recipe
gives the same file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from tests.media import clips

RATE = 25


@dataclass(frozen=True, kw_only=True)
class Codec:
    """An encoder, its picture format and the containers that take it."""

    encoder: str
    containers: tuple[str, ...]
    pix_fmt: str = "yuv420p"
    options: Callable[[Recipe], dict[str, str]] = lambda recipe: {"g": str(recipe.gop)}


def _x264(recipe: Recipe) -> dict[str, str]:
    more = (
        f"keyint={recipe.gop}:min-keyint=2:scenecut=0:bframes={recipe.b_frames}:open-gop={recipe.open_gop:d}"
    )
    return {**clips.x264(more)}


def _x265(recipe: Recipe) -> dict[str, str]:
    more = f"keyint={recipe.gop}:min-keyint=2:bframes={recipe.b_frames}:open-gop={recipe.open_gop:d}"
    quiet = "scenecut=0:pools=none:frame-threads=1:log-level=none"
    return {"preset": "ultrafast", "x265-params": f"{more}:{quiet}"}


def _mpeg(recipe: Recipe) -> dict[str, str]:
    closed = {} if recipe.open_gop else {"flags": "+cgop"}
    return {"g": str(recipe.gop), "bf": str(min(2, recipe.b_frames)), "sc_threshold": "1000000000", **closed}


def _vpx(recipe: Recipe) -> dict[str, str]:
    return {"deadline": "realtime", "cpu-used": "8", "g": str(recipe.gop)}


CODECS: dict[str, Codec] = {
    "h264": Codec(encoder="libx264", containers=("mp4", "mkv", "ts", "flv", "avi", "mov"), options=_x264),
    "h264_444": Codec(encoder="libx264", containers=("mkv",), pix_fmt="yuv444p", options=_x264),
    "hevc": Codec(encoder="libx265", containers=("mp4", "mkv", "ts"), options=_x265),
    "vp8": Codec(encoder="libvpx", containers=("webm", "mkv", "ivf"), options=_vpx),
    "vp9": Codec(encoder="libvpx-vp9", containers=("webm", "mp4"), options=_vpx),
    "mpeg2": Codec(encoder="mpeg2video", containers=("ts", "mkv", "mpg"), options=_mpeg),
    "mpeg1": Codec(encoder="mpeg1video", containers=("ts", "mpg", "avi"), options=_mpeg),
    "mpeg4": Codec(encoder="mpeg4", containers=("mp4", "avi", "mkv"), options=_mpeg),
    "msmpeg4": Codec(encoder="msmpeg4", containers=("avi", "asf")),
    "h263": Codec(encoder="h263p", containers=("avi",)),
    "flv1": Codec(encoder="flv", containers=("flv", "avi")),
    "wmv2": Codec(encoder="wmv2", containers=("asf", "avi")),
    "cinepak": Codec(encoder="cinepak", containers=("avi", "mov"), pix_fmt="rgb24"),
    "msvideo1": Codec(encoder="msvideo1", containers=("avi",), pix_fmt="rgb555le"),
    "mjpeg": Codec(encoder="mjpeg", containers=("avi", "mov", "mkv"), pix_fmt="yuvj420p"),
    "prores": Codec(encoder="prores_ks", containers=("mov",), pix_fmt="yuv422p10le"),
    "ffv1": Codec(encoder="ffv1", containers=("mkv", "avi"), pix_fmt="bgr0"),
    "huffyuv": Codec(encoder="huffyuv", containers=("avi",), pix_fmt="yuv422p"),
    "raw": Codec(encoder="rawvideo", containers=("avi",)),
    "raw_pal8": Codec(encoder="rawvideo", containers=("avi", "mov"), pix_fmt="pal8"),
    "qtrle": Codec(encoder="qtrle", containers=("mov",), pix_fmt="rgb24"),
    "qtrle_gray": Codec(encoder="qtrle", containers=("mov",), pix_fmt="gray"),
    "smc": Codec(encoder="smc", containers=("mov",), pix_fmt="pal8"),
    "msrle": Codec(encoder="msrle", containers=("avi",), pix_fmt="pal8"),
    "gif": Codec(encoder="gif", containers=("gif",), pix_fmt="rgb8"),
}
JOINABLE = ("ts", "flv", "mpg")
"""Containers of which two files, one after the other, are a file."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a file is made of."""

    codec: str
    container: str
    gop: int = 8
    b_frames: int = 2
    open_gop: bool = False
    frames: int = 30
    start: int = 0
    """Time of the first frame, in frames."""
    joined_at: int | None = None
    """A second recording follows whose first frame has this time, in frames."""
    joined_rate: int = RATE
    joined_width: int = 96
    all_keys: bool = False
    """The container calls every frame a key."""
    still: str = ""
    """"before" or "after" the video there is a stream of one picture."""
    sound: bool = False
    flips: int = 0
    """So many bytes are damaged."""
    cut: float = 1.0
    """This share of the file is there."""

    @property
    def is_sound(self) -> bool:
        """Nothing about it is broken or pieced together."""
        return self.joined_at is None and not self.flips and self.cut == 1.0


def make(folder: Path, recipe: Recipe) -> Path:
    """Writes the file of a recipe."""
    path = _recorded(folder / f"first.{recipe.container}", recipe, recipe.start, 0)
    if recipe.joined_at is not None:
        second = replace(recipe, still="")
        path = _join(path, _recorded(folder / f"second.{recipe.container}", second, recipe.joined_at, 500))
    data = bytearray(path.read_bytes())
    for place in np.random.default_rng(recipe.flips).integers(len(data) // 4, len(data), recipe.flips):
        data[place] ^= 0x5A
    path.write_bytes(bytes(data[: int(len(data) * recipe.cut)]))
    return path


def _join(first: Path, second: Path) -> Path:
    """One recording after the other; the header of a second FLV is left out."""
    more = second.read_bytes()
    more = more[13:] if first.suffix == ".flv" else more
    first.write_bytes(first.read_bytes() + more)
    return first


def _recorded(path: Path, recipe: Recipe, start: int, first: int) -> Path:
    codec = CODECS[recipe.codec]
    second = first > 0
    rate, width = (recipe.joined_rate, recipe.joined_width) if second else (RATE, 96)
    with av.open(str(path), "w") as container:
        still = _add_still(container) if recipe.still == "before" else None
        stream: Any = container.add_stream(
            codec.encoder, rate=rate, options={"threads": "1", **codec.options(recipe)}
        )
        stream.width, stream.height, stream.pix_fmt = width, 64, codec.pix_fmt
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, rate)
        if recipe.still:
            stream.disposition = Disposition.default
        still = _add_still(container) if recipe.still == "after" else still
        sound: Any = container.add_stream("aac", rate=48000, layout="mono") if recipe.sound else None
        if still is not None:
            container.mux(still.encode(_frame(clips.picture(7, 48, 48), "yuvj420p", 0)))
        for number in range(recipe.frames):
            picture = clips.picture(first + number, 64, width)
            frame = _frame(picture, codec.pix_fmt, start + number)
            frame.time_base = Fraction(1, rate)
            _mux(container, stream.encode(frame), recipe)
            if sound is not None:
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                silence.sample_rate, silence.pts = 48000, number * 1024
                container.mux(sound.encode(silence))
        _mux(container, stream.encode(None), recipe)
    if recipe.all_keys:
        _call_all_keys(path)
    return path


def _add_still(container: Any) -> Any:
    still = container.add_stream("mjpeg", rate=RATE)
    still.width, still.height, still.pix_fmt = 48, 48, "yuvj420p"
    still.disposition = Disposition(0)
    return still


def _frame(picture_HW3: np.ndarray, pix_fmt: str, pts: int) -> av.VideoFrame:
    if pix_fmt == "pal8":
        frame = av.VideoFrame(picture_HW3.shape[1], picture_HW3.shape[0], "pal8")
        index, palette = frame.planes
        rows = np.zeros((picture_HW3.shape[0], index.line_size), np.uint8)
        rows[:, : picture_HW3.shape[1]] = picture_HW3[..., 0] // 32 * 32 + picture_HW3[..., 1] // 64
        index.update(rows.tobytes())
        colours = np.random.default_rng(3).integers(0, 256, (256, 4), dtype=np.uint8)
        colours[:, 3] = 255
        palette.update(colours.tobytes())
    else:
        frame = av.VideoFrame.from_ndarray(picture_HW3, format="rgb24").reformat(format=pix_fmt, threads=1)
    frame.pts = pts
    return frame


def _mux(container: Any, packets: Any, recipe: Recipe) -> None:
    for packet in packets:
        packet.is_keyframe |= recipe.all_keys
        container.mux(packet)


def _call_all_keys(path: Path) -> None:
    """Muxers that look for themselves: no list of keys (mp4, mov), every entry of the index a key (avi)."""
    data = path.read_bytes().replace(b"stss", b"free")
    at = data.rfind(b"idx1")
    if path.suffix == ".avi" and at >= 0:
        size = struct.unpack_from("<I", data, at + 4)[0]
        entries = bytearray(data[at + 8 : at + 8 + size])
        entries[4::16] = bytes(value | 0x10 for value in entries[4::16])
        data = data[: at + 8] + bytes(entries) + data[at + 8 + size :]
    path.write_bytes(data)
