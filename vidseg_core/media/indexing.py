"""What frames a video has, and where decoding may start, without decoding it.

Model: the demuxer's packets give the presentation time of every frame; the first frames decoded from the
start, and one frame at a few key frames, show whether these times are what the decoder delivers. If they
are, the video is `regular`. If times are missing, doubled, step back (recordings that were joined, a stream
that was reset) or contradict the decoder, the video is decoded once, plainly, and each frame keeps the time
that it has there, or none.
Invariant: for an undamaged video `frame_pts` lists exactly the frames that a plain decode delivers, in its
order. Decoding of units checks it, and reports every frame that is missing or that nobody announced.

Frames that follow a key packet but are shown before it (open GOP) belong to the unit before. Interlaced video
is described by its woven frames.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass

import av
import av.error
import numpy as np

from vidseg_core.media.errors import MediaError
from vidseg_core.media.guard import Opened, check_picture, open_video
from vidseg_core.media.look import Look
from vidseg_core.media.model import NO_TIME, MediaLimits, VideoIndex
from vidseg_core.media.opening import open_source
from vidseg_core.media.packet_list import PacketList, read_packets
from vidseg_core.media.packets import FrameStream
from vidseg_core.media.streams import Choice, choose_stream

HEAD_FRAMES = 12
"""Frames decoded from the start to see whether packet times and decoder agree."""
MAX_LOST_IN_HEAD = 6
"""Leading frames that may be lost in a stream that shows damage; more, and packets do not give the frames."""
KEY_CHECKS = 4
"""Key frames at which a start is tried."""
MOST_REORDERED = 16
"""Frames that a decoder may hold back (the picture buffer of H.264 and HEVC)."""

Beat = Callable[[], None]
Reopen = Callable[[], AbstractContextManager[Opened]]


def _no_beat() -> None:
    """Nobody watches the progress."""


def probe(
    uri: str,
    limits: MediaLimits | None = None,
    *,
    stream: int | None = None,
    beat: Beat = _no_beat,
) -> VideoIndex:
    """Indexes what is at an address: its stream number `stream`, or the one that is the video.

    `beat` is called while progress is made. Raises MediaError.
    """
    limits = limits or MediaLimits()
    try:
        with contextlib.closing(open_source(uri)) as source:
            choice = choose_stream(uri, source, limits, stream)
            return _probe(
                lambda: open_video(uri, limits, stream=choice.stream, source=source), choice, limits, beat
            )
    except (av.error.MemoryError, MemoryError):
        raise MediaError("too_large", f"{uri}: needs more memory than the limit allows") from None
    except OSError as error:
        raise MediaError("unreadable", f"{uri}: reading failed ({error})") from None


def _probe(reopen: Reopen, choice: Choice, limits: MediaLimits, beat: Beat) -> VideoIndex:
    with reopen() as video:
        packets = read_packets(video, beat)
    with reopen() as video:
        head = _decode_head(video, limits, beat)
    times = _Times.of(packets)
    if times is None or not times.trim_to(head):
        with reopen() as video:
            return _index_by_decoding(video, choice, packets, head, beat)
    keys = times.safe_keys()
    if not _starts_work(reopen, times, keys, beat):
        keys = keys[:1]
    damage = [text for text in (times.damage, packets.damage) if text]
    return _index(packets, choice, head, times.sorted, keys, regular=True, damage="; ".join(damage) or None)


@dataclass(slots=True)
class _Head:
    """The first decoded frames."""

    pts: list[int | None]
    pix_fmt: str
    look: Look
    error: str | None = None
    ended: bool = False
    corrupt: int = 0
    refused: int = 0
    """Packets that the decoder refused."""


def _decode_head(video: Opened, limits: MediaLimits, beat: Beat) -> _Head:
    frames = FrameStream(video)
    head: _Head | None = None
    for frame in frames:
        beat()
        if head is None:
            check_picture(video.uri, frame.width, frame.height, limits)
            head = _Head([], frame.format.name, Look.of(frame, video.stream, limits))
        head.pts.append(frame.pts)
        head.corrupt += frame.is_corrupt
        head.refused = frames.refused
        if len(head.pts) == HEAD_FRAMES:
            return head
    if head is None:
        why = frames.error or "the decoder delivers nothing"
        raise MediaError("no_frames", f"{video.uri}: not one frame can be decoded ({why})")
    head.error, head.ended, head.refused = frames.error, True, frames.refused
    return head


class _Times:
    """Presentation times from packets: sorted, unique, with what is needed to find safe starts."""

    def __init__(self, packets: PacketList) -> None:
        self.pts = np.array(packets.pts, dtype=np.int64)
        self.dts = np.array([NO_TIME if t is None else t for t in packets.dts], dtype=np.int64)
        self.key, self.start = np.array(packets.key, dtype=bool), np.array(packets.start, dtype=bool)
        self.sorted = np.sort(self.pts)
        self.discarded_key_first = packets.discarded_key_first
        self.damage: str | None = None

    @classmethod
    def of(cls, packets: PacketList) -> _Times | None:
        """None if times are missing or doubled, or step back, or do not say what the bitstream does."""
        if packets.is_joined or None in packets.pts or len(set(packets.pts)) != len(packets.pts):
            return None
        times = cls(packets)
        return None if times._step_back() else times

    def _step_back(self) -> bool:
        """Decode times fall, a start is shown no later than a packet before it, or a packet before more
        others than a decoder can hold back."""
        known = self.dts[self.dts != NO_TIME]
        latest = np.maximum.accumulate(self.pts)
        early = self.start[1:] & (self.pts[1:] < latest[:-1])
        far = self.pts[MOST_REORDERED + 1 :] < latest[: -MOST_REORDERED - 1]
        return bool(np.any(np.diff(known) < 0) or np.any(early) or np.any(far))

    def trim_to(self, head: _Head) -> bool:
        """Drops frames that are there but cannot be decoded at the start; False: they disagree."""
        if None in head.pts:
            return False
        shown = np.array(head.pts, dtype=np.int64)
        first, last = np.searchsorted(self.sorted, shown[[0, -1]]).tolist()
        if np.any(np.diff(shown) <= 0) or not np.all(np.isin(shown, self.sorted)):
            return False
        lost = last - first + 1 - len(shown)
        if head.ended and head.error is None:
            lost += len(self.sorted) - 1 - last
        if (
            self.start.all() and 0 < first + lost <= head.refused
        ):  # pictures that were refused keep their numbers
            return True
        if lost > (MAX_LOST_IN_HEAD if head.corrupt else 0):
            return False
        undecodable = self._without_reference()
        if first > undecodable:
            self.damage = f"the first {first - undecodable} frames cannot be decoded"
        self.sorted = self.sorted[first:]
        return True

    def _without_reference(self) -> int:
        """Leading frames that refer to something before the file's first key frame."""
        keys = np.flatnonzero(self.key)
        if self.discarded_key_first or not len(keys):
            return 0
        return int(np.count_nonzero(self.pts < self.pts[keys[0]]))

    def safe_keys(self) -> list[tuple[int, int]]:
        """(frame number, dts) of the starts: frame 0, and each packet that proves itself."""
        safe = self.start & (self.pts > self.sorted[0])
        numbers = np.searchsorted(self.sorted, self.pts[safe])
        return [(0, NO_TIME), *zip(numbers.tolist(), self.dts[safe].tolist(), strict=True)]


def _starts_work(reopen: Reopen, times: _Times, keys: Sequence[tuple[int, int]], beat: Beat) -> bool:
    """Whether a fresh decoder started at a few of the keys shows that very frame first."""
    others = keys[1:]
    picks = (
        {round(i * (len(others) - 1) / max(1, KEY_CHECKS - 1)) for i in range(KEY_CHECKS)}
        if others
        else set()
    )
    for pick in sorted(picks):
        number, dts = others[pick]
        beat()
        with reopen() as video:
            frames = FrameStream(video, start_pts=int(times.sorted[number]), start_dts=dts)
            landing = next((f.pts for f in frames if f.pts is None or f.pts >= times.sorted[number]), None)
            if landing != times.sorted[number] or not frames.landed:
                return False
    return True


def _index_by_decoding(
    video: Opened, choice: Choice, packets: PacketList, head: _Head, beat: Beat
) -> VideoIndex:
    frames = FrameStream(video)
    shown: list[int] = []
    woven = False
    for frame in frames:
        beat()
        woven |= frame.interlaced_frame
        shown.append(NO_TIME if frame.pts is None else frame.pts)
    if not shown:
        raise MediaError("no_frames", f"{video.uri}: not one frame can be decoded ({frames.error})")
    lost = len(packets.pts) - len(shown) if packets.frame_each and not woven else 0
    missing = f"{lost} of {len(packets.pts)} frames did not come out of the decoder" if lost > 0 else None
    damage = (
        "; ".join(dict.fromkeys(text for text in (packets.damage, frames.error, missing) if text)) or None
    )
    pts = np.array(shown, dtype=np.int64)
    return _index(packets, choice, head, pts, [(0, NO_TIME)], regular=False, damage=damage)


def _index(
    packets: PacketList,
    choice: Choice,
    head: _Head,
    pts: np.ndarray,
    keys: Sequence[tuple[int, int]],
    *,
    regular: bool,
    damage: str | None,
) -> VideoIndex:
    num, den = packets.time_base
    given = pts[pts != NO_TIME]
    span = int(np.ptp(given)) + (packets.last_duration or packets.frame_duration) if len(given) else np.nan
    return VideoIndex(
        codec=packets.codec,
        container=packets.container,
        pix_fmt=head.pix_fmt,
        **asdict(head.look),
        time_base_num=num,
        time_base_den=den,
        declared_frames=packets.declared,
        duration_s=span * num / den,
        frame_pts=pts,
        key_indices=np.array([number for number, _ in keys], dtype=np.int64),
        key_dts=np.array([dts for _, dts in keys], dtype=np.int64),
        regular=regular,
        stream=choice.stream,
        other_streams=choice.others,
        damage=damage,
        frame_duration=packets.frame_duration,
    )
