"""Guarded opening of untrusted video files.

Model: one of *our* file objects goes in, a container with one video stream comes out (which: `streams`).
What the file says is never followed: formats that refer to other files are off the list (`FORMATS`), no
protocol is allowed, nested opens are refused. The codec context carries the pixel limit (the one given to the
container alone does not reach h264) and decodes on one thread.
Invariant: container and source are closed when the `with` block is left, however it is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import av
import av.container
import av.error
from av.stream import Discard
from av.video.stream import VideoStream

from vidseg_core.media.errors import MediaError
from vidseg_core.media.model import MediaLimits
from vidseg_core.media.opening import open_source
from vidseg_core.media.source import Source

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,obu,ivf,flv,asf,"
    "ogg,mxf,gxf,nut,dv,yuv4mpegpipe,gif,apng,rm,mp3,aac,wav,flac,w64,amr"
)
"""Demuxers that read one self-contained file (the audio ones so that they are named as such)."""

CODEC_SLACK = 1 << 18
"""Pixels: a decoder counts the picture as it pads it; the exact limit is held by `check_picture`."""

_REFERRING = (
    b"#EXTM3U",
    b"ffconcat",
    b"v=0",
    b"[playlist]",
    b"[InternetShortcut]",
    b"RTSPtext",
    b"<smil",
    b"<?xml",
)
_CONTAINER_MAGIC = (
    (0, b"\x1aE\xdf\xa3"),
    (0, b"RIFF"),
    (0, b"OggS"),
    (0, b"FLV\x01"),
    (0, b"YUV4MPEG2"),
    (0, b"\x00\x00\x01\xba"),
    (0, b"\x30\x26\xb2\x75"),
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (4, b"free"),
    (4, b"wide"),
    (4, b"skip"),
)


_PICTURE = "a single picture; a folder of numbered JPEG or PNG frames is a video"
_OTHER_THINGS = (
    (0, b"\xff\xd8\xff", _PICTURE),
    (0, b"\x89PNG\r\n", _PICTURE),
    (0, b"BM", _PICTURE),
    (0, b"II*\0", _PICTURE),
    (0, b"MM\0*", _PICTURE),
    (0, b"PK\3\4", "a ZIP archive; unpack it"),
    (0, b"\x1f\x8b", "packed with gzip; unpack it"),
    (0, b"BZh", "packed with bzip2; unpack it"),
    (0, b"\xfd7zXZ\0", "packed with xz; unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "packed with zstd; unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (0, b"Rar!\x1a\7", "a RAR archive; unpack it"),
    (257, b"ustar", "a tar archive; unpack it"),
)
"""What people name by mistake, and what they can do."""

_RIFF_KINDS = (b"AVI ", b"AVIX", b"AVI\x19", b"AMV ", b"WAVE")
"""Other RIFF files are no videos of ours, however sound (an animated WebP, a cursor)."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open container, its chosen video stream, and the file object below."""

    container: av.container.InputContainer
    stream: VideoStream
    source: Source
    uri: str


@contextmanager
def open_video(
    uri: str, limits: MediaLimits, *, stream: int, source: Source | None = None, stamp: str = ""
) -> Iterator[Opened]:
    """Opens stream number `stream` of `uri` under guard; nothing of the other streams is read.

    `source` given: read from that (and leave it open) instead of opening anew. `stamp`: see `open_source`.
    Raises MediaError; av.error.FFmpegError of later reads pass through.
    """
    if source is None:
        with (
            closing(open_source(uri, stamp)) as source,
            open_video(uri, limits, stream=stream, source=source) as video,
        ):
            yield video
        return
    with open_container(uri, source, limits) as container:
        chosen = next((s for s in container.streams.video if s.index == stream), None)
        if chosen is None:
            raise MediaError("no_video_stream", f"{uri}: stream {stream} is no video stream")
        for other in container.streams:
            if other is not chosen:
                other.discard = Discard.all
        _limit_codec(uri, chosen, limits)
        yield Opened(container, chosen, source, uri)


@contextmanager
def open_container(uri: str, source: Source, limits: MediaLimits) -> Iterator[av.container.InputContainer]:
    """The container in `source`, with all of its streams. Raises MediaError."""
    source.seek(0)
    container = _open(uri, source, limits)
    try:
        yield container
    finally:
        container.close()


def check_picture(uri: str, width: int, height: int, limits: MediaLimits) -> None:
    """Raises MediaError too_large for a picture over the limit."""
    if width * height > limits.max_pixels:
        text = f"{uri}: picture of {width}x{height} is over the limit of {limits.max_pixels} pixels"
        raise MediaError("too_large", text)


def _open(uri: str, source: Source, limits: MediaLimits) -> av.container.InputContainer:
    head = source.read(4096) or b""
    source.seek(0)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_REFERRING):
        raise MediaError("forbidden_format", f"{uri}: a text that refers to other files, not a video")
    pixels = {"max_pixels": str(limits.max_pixels)}
    try:
        return av.open(
            source,
            mode="r",
            options=pixels,
            container_options={"format_whitelist": FORMATS, "protocol_whitelist": "none"},
            metadata_errors="replace",
            buffer_size=1 << 17,
            io_open=_refuse_open,
        )
    except (av.error.FFmpegError, UnicodeError, ValueError) as error:
        known = any(head[at : at + len(magic)] == magic for at, magic in _CONTAINER_MAGIC)
        known &= head[:4] != b"RIFF" or head[8:12] in _RIFF_KINDS
        other = _other_thing(head)
        if isinstance(error, av.error.ArgumentError) and not known:
            message = f"{uri}: {other or 'format not allowed (only self-contained video files are)'}"
            raise MediaError("forbidden_format", message) from None
        if known:
            raise MediaError("corrupt_header", f"{uri}: the header cannot be used ({error})") from None
        raise MediaError("not_a_video", f"{uri}: {other or 'not recognised as a video'}") from None


def _other_thing(head: bytes) -> str | None:
    """What a file is that is no video, where its first bytes say so."""
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        text = "an animated WebP, which FFmpeg cannot decode; save it as PNG frames, APNG or a video"
        return text if b"ANIM" in head else _PICTURE
    return next((text for at, magic, text in _OTHER_THINGS if head[at : at + len(magic)] == magic), None)


def _refuse_open(url: str, flags: int, options: dict[str, Any]) -> NoReturn:
    raise PermissionError(f"the file refers to another one ({url}); that is not followed")


def _limit_codec(uri: str, stream: VideoStream, limits: MediaLimits) -> None:
    codec = stream.codec_context
    if codec is None:
        raise MediaError("no_frames", f"{uri}: no decoder for its video stream")
    check_picture(uri, codec.width, codec.height, limits)
    codec.options = {**codec.options, "max_pixels": str(limits.max_pixels * 5 // 4 + CODEC_SLACK)}
    codec.thread_count = 1
    codec.thread_type = "NONE"
