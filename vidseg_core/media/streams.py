"""Which of a file's streams is the video.

Model: a file may hold several video streams: a cover, a thumbnail, other angles. The one that is meant is no
attached picture, no still beside a real video, one that can be decoded, then one that the file marks as
default, then the largest, then the first. Streams are numbered as the container does, all kinds together.
Invariant: the choice depends on the file alone. What else the file holds is said (`Choice.others`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import av.container
import av.error
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from vidseg_core.media.errors import MediaError
from vidseg_core.media.guard import open_container
from vidseg_core.media.model import MediaLimits
from vidseg_core.media.source import Source

AUDIO_ONLY = frozenset({"mp3", "aac", "wav", "flac", "w64", "amr"})
"""Formats whose pictures are covers."""
_STILL = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
_SHOWN = 12
"""Other streams that are described."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A stream's number and the file's other streams in words (None: there are none)."""

    stream: int
    others: str | None


def choose_stream(uri: str, source: Source, limits: MediaLimits, wanted: int | None = None) -> Choice:
    """The video stream of a file, or the one that is `wanted`. Raises MediaError no_video_stream."""
    with open_container(uri, source, limits) as container:
        streams = list(container.streams)
        videos = list(container.streams.video)
        if wanted is None:
            if container.format.name in AUDIO_ONLY or all(_is_attached(video) for video in videos):
                raise MediaError("no_video_stream", f"{uri}: no video stream ({container.format.name})")
            chosen = videos[0] if len(videos) == 1 else _best(container, videos)
        else:
            chosen = next((video for video in videos if video.index == wanted), None)
            if chosen is None:
                text = (
                    f"{uri}: stream {wanted} (--media.stream) is no video stream; there is {_words(streams)}"
                )
                raise MediaError("no_video_stream", text)
        others = [stream for stream in streams if stream.index != chosen.index]
        return Choice(chosen.index, _words(others) if others else None)


def _best(container: av.container.InputContainer, videos: Sequence[VideoStream]) -> VideoStream:
    stills = _stills(container, videos)

    def rank(video: VideoStream) -> tuple[bool | int, ...]:
        codec = video.codec_context
        return (
            _is_attached(video),
            video.index in stills,
            codec is None,
            not video.disposition & Disposition.default,
            -codec.width * codec.height if codec is not None else 0,
            video.index,
        )

    return min(videos, key=rank)


def _stills(container: av.container.InputContainer, videos: Sequence[VideoStream]) -> set[int]:
    """Numbers of the streams that show a picture rather than a video: marked as such, or of one packet."""
    packets: Counter[int] = Counter()
    try:
        for packet in container.demux(list(videos)):
            packets[packet.stream_index] += packet.size > 0
            if all(packets[video.index] > 1 for video in videos):
                break
    except (av.error.FFmpegError, IndexError):  # the file ends here
        pass
    return {video.index for video in videos if video.disposition & _STILL or packets[video.index] < 2}


def _is_attached(video: VideoStream) -> bool:
    return bool(video.disposition & Disposition.attached_pic)


def _words(streams: Sequence[Stream]) -> str:
    """`0: video mjpeg 64x64 (attached picture); 2: audio aac`."""
    shown = "; ".join(_described(stream) for stream in streams[:_SHOWN])
    return shown + (f"; and {len(streams) - _SHOWN} more" if len(streams) > _SHOWN else "") or "none"


def _described(stream: Stream) -> str:
    words = [f"{stream.index}: {stream.type}"]
    codec = stream.codec_context
    if codec is not None:
        words.append(codec.name)
    if isinstance(stream, VideoStream) and codec is not None:
        words.append(f"{stream.codec_context.width}x{stream.codec_context.height}")
        if _is_attached(stream):
            words.append("(attached picture)")
    return " ".join(words)
