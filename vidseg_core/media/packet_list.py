"""Everything the packets of a stream say without decoding, and what the container claims to hold.

Model: one pass of the demuxer over the file; a packet is one frame to be shown, unless the container discards
it (edit lists) or it is a hidden reference. Decoding may start at a packet that the container calls a key
(its demuxer seeks to those only) and whose bitstream proves it.
Invariant: a file that ends early or cannot be read to its end gives the packets that are there, and `damage`
says so.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import av
import av.error
from av.packet import Packet
from av.video.stream import VideoStream

from vidseg_core.media.bitstream import ONE_PACKET_ONE_FRAME, StartProof, is_hidden
from vidseg_core.media.errors import MediaError
from vidseg_core.media.guard import Opened
from vidseg_core.media.packets import demux, describe_error, is_key


@dataclass(slots=True)
class PacketList:
    """The packets of the stream in file order, discarded and hidden ones left out of the four lists."""

    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    """The container's flag."""
    start: list[bool] = field(default_factory=list)
    """A fresh decoder may start here, going by flag and bitstream."""
    last_duration: int = 0
    declared: int = 0
    container: str = ""
    codec: str = ""
    """Name of its decoder."""
    frame_each: bool = False
    """A packet is a frame, going by the codec."""
    time_base: tuple[int, int] = (1, 1)
    frame_duration: int = 1
    discarded_key_first: bool = False
    is_joined: bool = False
    """The bitstream itself shows that recordings were joined."""
    damage: str | None = None

    def add(self, packet: Packet[VideoStream], proven: bool) -> None:
        """A packet that is to be shown, unless the container discards it."""
        if packet.is_discard:
            self.discarded_key_first |= not self.pts and is_key(packet)
            return
        self.pts.append(packet.pts)
        self.dts.append(packet.dts)
        self.key.append(is_key(packet))
        self.start.append(proven and is_key(packet))
        self.last_duration = packet.duration or self.last_duration


def read_packets(video: Opened, beat: Callable[[], None]) -> PacketList:
    stream = video.stream
    base = stream.time_base
    if base is None or base <= 0:
        raise MediaError("corrupt_header", f"{video.uri}: the video stream has no time base")
    codec = stream.codec_context
    name, proof = codec.codec.canonical_name, StartProof(codec)
    rate = stream.average_rate or stream.guessed_rate
    out = PacketList(
        declared=max(0, stream.frames),
        container=video.container.format.name,
        codec=codec.name,
        frame_each=name in ONE_PACKET_ONE_FRAME,
        time_base=(base.numerator, base.denominator),
        frame_duration=max(1, round(1 / (rate * base))) if rate else 1,
    )
    is_cut = False
    try:
        for packet in demux(video):
            beat()
            if packet.size == 0:
                continue
            proven, is_cut = proof.sees(packet), packet.is_corrupt
            if not is_hidden(name, packet):
                out.add(packet, proven)
        out.damage = _early_end(video, out, is_cut) or video.source.damage
    except av.error.FFmpegError as error:
        out.damage = f"cannot be read to its end ({describe_error(error)})"
    out.is_joined = proof.is_joined
    if not out.pts:
        raise MediaError("no_frames", f"{video.uri}: no video frames ({out.damage or 'empty stream'})")
    return out


def _early_end(video: Opened, packets: PacketList, is_cut: bool) -> str | None:
    """A note if the file ends before it should; `is_cut`: in its last packet."""
    missing = _entries_after_the_end(video)
    if missing:
        return f"the file ends before {missing} of the frames it lists"
    return "the file ends in the middle of a frame" if is_cut else _shortness(video, packets)


def _shortness(video: Opened, packets: PacketList) -> str | None:
    """A note if the frames end long before the length that the header gives for this stream."""
    declared = _declared_seconds(video)
    times = sorted(t for t in packets.pts if t is not None)
    if declared is None or not times:
        return None
    tick = packets.time_base[0] / packets.time_base[1]
    gap = max((b - a for a, b in itertools.pairwise(times)), default=0)
    last = times[-1] + (packets.last_duration or packets.frame_duration)
    seconds = (last - min(0, times[0])) * tick  # some containers count the length from time zero
    if declared - seconds <= max(1.0, 0.03 * declared, 2 * gap * tick):
        return None
    return f"the frames end after {seconds:.1f} s of the {declared:.1f} s that the header gives"


def _declared_seconds(video: Opened) -> float | None:
    """Length of the stream by the header; None where a demuxer would only estimate it from what is there."""
    stream = video.stream
    if video.container.format.name in ("mpegts", "mpeg"):
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    alone = len(video.container.streams) == 1 and video.container.duration
    return video.container.duration / 1e6 if alone and video.container.duration else None


def _entries_after_the_end(video: Opened) -> int:
    """Entries of the container's own index (mp4, avi) that lie after the end of the file."""
    end = video.source.size
    return sum(entry.pos + entry.size > end for entry in video.stream.index_entries)
