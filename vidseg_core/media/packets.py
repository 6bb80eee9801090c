"""From packets to frames: where to start, when to stop, what an error costs.

Model: decoding starts at the very packet that the index names as key (seeking is only the way to get near
it), is fed packet by packet, and never recovers by guessing: a packet that the decoder refuses is skipped and
counted, as in one plain run over the file. Damage in a packet that is shown after the end costs nothing: the
decoder is drained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

import av
import av.error
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidseg_core.media.errors import MediaError
from vidseg_core.media.guard import Opened
from vidseg_core.media.model import NO_TIME


@dataclass(slots=True)
class FrameStream:
    """Iterates over the decoded frames; afterwards `error` says what went wrong (None: nothing)."""

    video: Opened
    start_pts: int | None = None
    """Presentation time of the key packet to start with; None: the file's start."""
    start_dts: int = NO_TIME
    end_pts: int | None = None
    """Packets to be shown from here on belong to others; they are read only to bring out the last frames."""
    wanted: Collection[int | None] | None = None
    """Presentation times of the packets that are decoded, where none needs another; None: all of them."""
    fed: Callable[[Packet[VideoStream]], None] | None = None
    """Is shown every packet that is about to be decoded."""
    refused: int = field(default=0, init=False)
    """Packets that the decoder refused."""
    landed: bool = field(default=True, init=False)
    """False: the key packet could only be found by reading from the file's start, or not at all."""

    _first: str = field(default="", init=False)
    _broken: str | None = field(default=None, init=False)

    @property
    def error(self) -> str | None:
        """Refused packets, and what ended the reading early."""
        texts = [self._broken] if self._broken else []
        if self.refused:
            packets = f"{self.refused} packet{'s' if self.refused > 1 else ''}"
            texts.insert(0, f"{packets} could not be decoded ({self._first})")
        return "; ".join(texts) or None

    def __iter__(self) -> Iterator[VideoFrame]:
        for packet in self._packets():
            if (
                self.wanted is not None
                and packet is not None
                and packet.size
                and packet.pts not in self.wanted
            ):
                continue
            if self.fed is not None and packet is not None:
                self.fed(packet)
            try:
                frames = self.video.stream.decode(packet)
            except av.error.EOFError:
                return
            except av.error.MemoryError:
                raise
            except (av.error.FFmpegError, ValueError) as error:
                if self._is_behind_the_end(packet):
                    with contextlib.suppress(av.error.FFmpegError):
                        yield from self.video.stream.decode(None)
                    return
                self._first = self._first or describe_error(error)
                self.refused += 1
                continue
            yield from frames

    def _is_behind_the_end(self, packet: Packet[VideoStream] | None) -> bool:
        if packet is None or packet.pts is None or self.end_pts is None:
            return False
        return packet.pts >= self.end_pts

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        """Packets from the key on; an error of the demuxer ends the file there (None: drain the decoder)."""
        source = self._from_key() if self.start_pts is not None else demux(self.video)
        try:
            yield from source
        except av.error.FFmpegError as error:
            self._broken = f"cannot be read to its end ({describe_error(error)})"
            yield None
        except OSError as error:
            raise MediaError("unreadable", f"{self.video.uri}: reading failed ({error})") from None

    def _from_key(self) -> Iterator[Packet[VideoStream]]:
        assert self.start_pts is not None
        targets = [self.start_pts, *([self.start_dts] if self.start_dts != NO_TIME else [])]
        for target in targets:
            try:
                self.video.container.seek(target, stream=self.video.stream, backward=True)
                found = self._skip_to_key()
            except av.error.FFmpegError:
                continue
            if found is not None:
                yield from found
                return
        self.landed = False
        self.video.container.seek(0, backward=True, any_frame=True)
        found = self._skip_to_key(to_the_end=True)
        if found is None:
            self._broken = "the key frame to start with is not in the file"
            return
        yield from found

    def _skip_to_key(self, to_the_end: bool = False) -> Iterator[Packet[VideoStream]] | None:
        """The stream from the key packet on, or None if the landing place lies after it."""
        packets = demux(self.video)
        for packet in packets:
            if is_key(packet) and packet.pts == self.start_pts and not packet.is_discard:
                return _chain(packet, packets)
            if not to_the_end and self._is_past(packet):
                return None
        return None

    def _is_past(self, packet: Packet[VideoStream]) -> bool:
        if packet.dts is not None and self.start_dts != NO_TIME:
            return packet.dts > self.start_dts
        return (
            packet.pts is not None
            and self.start_pts is not None
            and is_key(packet)
            and packet.pts > self.start_pts
        )


def demux(video: Opened) -> Iterator[Packet[VideoStream]]:
    """Packets of the chosen stream; last of all the empty packet that drains the decoder.

    When further streams turn up after the header (MPEG-TS), PyAV may trip over them after that last packet.
    """
    try:
        yield from video.container.demux(video.stream)
    except IndexError:
        return


def is_key(packet: Packet[VideoStream]) -> bool:
    return packet.is_keyframe and packet.size > 0


def _chain(first: Packet[VideoStream], rest: Iterator[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
    yield first
    yield from rest


def describe_error(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    return f"{type(error).__name__}: {strerror or error}"
