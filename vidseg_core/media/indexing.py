"""What frames a video has, and where decoding may start, without decoding it.

Model: the demuxer's packets give the presentation time of every frame; the first frames decoded from the
start, and one frame at a few key frames, show whether these times are what the decoder delivers. If they
are, the video is `regular`. If times are missing, doubled or contradict the decoder, the video is decoded
once to count its frames: the decoder's output order is the presentation order then, and the sorted times
(made up where missing) are its times.
Invariant: for an undamaged video `frame_pts` lists exactly the frames that a sequential decode delivers, in
order.

A key frame is a safe start only if no packet before it in the file is to be shown after it. Frames that
follow a key packet but are shown before it (open GOP) belong to the unit before. Interlaced video is
described by its woven frames.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import av
import av.error
import numpy as np

from vidseg_core.media.errors import MediaError
from vidseg_core.media.guard import Opened, check_picture, open_video
from vidseg_core.media.model import NO_DTS, MediaLimits, VideoIndex
from vidseg_core.media.packet_list import PacketList, read_packets
from vidseg_core.media.packets import FrameStream
from vidseg_core.media.source import open_source

HEAD_FRAMES = 12
"""Frames decoded from the start to see whether packet times and decoder agree."""
MAX_LOST_IN_HEAD = 6
"""So many of these may be lost in a stream that shows damage; more, and packets do not tell frames."""
KEY_CHECKS = 4
"""Key frames at which a start is tried."""

Beat = Callable[[], None]
Reopen = Callable[[], AbstractContextManager[Opened]]


def _no_beat() -> None:
    """Nobody watches the progress."""


def probe(uri: str, limits: MediaLimits | None = None, *, beat: Beat = _no_beat) -> VideoIndex:
    """Indexes a local path or s3:// object. `beat` is called while progress is made. Raises MediaError."""
    limits = limits or MediaLimits()
    try:
        with contextlib.closing(open_source(uri)) as source:
            return _probe(lambda: open_video(uri, limits, source), limits, beat)
    except (av.error.MemoryError, MemoryError):
        raise MediaError("too_large", f"{uri}: needs more memory than the limit allows") from None
    except OSError as error:
        raise MediaError("unreadable", f"{uri}: reading failed ({error})") from None


def _probe(reopen: Reopen, limits: MediaLimits, beat: Beat) -> VideoIndex:
    with reopen() as video:
        packets = read_packets(video, beat)
    with reopen() as video:
        head = _decode_head(video, limits, beat)
    times = _Times.of(packets)
    if times is None or not times.trim_to(head):
        with reopen() as video:
            return _index_by_decoding(video, packets, head, beat)
    keys = times.safe_keys()
    if not _starts_work(reopen, times, keys, beat):
        keys = keys[:1]
    return _regular_index(packets, head, times, keys)


@dataclass(slots=True)
class _Head:
    """The first decoded frames."""

    pts: list[int | None]
    width: int
    height: int
    rotation: int
    pix_fmt: str
    error: str | None
    ended: bool
    corrupt: int = 0


def _decode_head(video: Opened, limits: MediaLimits, beat: Beat) -> _Head:
    frames = FrameStream(video)
    head: _Head | None = None
    for frame in frames:
        beat()
        if head is None:
            check_picture(video.uri, frame.width, frame.height, limits)
            rotation = quarter_turns(frame.rotation) * 90
            turned = rotation % 180 != 0
            width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
            head = _Head([], width, height, rotation, frame.format.name, None, ended=False)
        head.pts.append(frame.pts)
        head.corrupt += frame.is_corrupt
        if len(head.pts) == HEAD_FRAMES:
            return head
    if head is None:
        why = frames.error or "the decoder delivers nothing"
        raise MediaError("no_frames", f"{video.uri}: not one frame can be decoded ({why})")
    head.error, head.ended = frames.error, True
    return head


def quarter_turns(degrees: float) -> int:
    """Counter-clockwise quarter turns, -1 .. 2, nearest to a rotation in degrees."""
    return (round(degrees / 90) + 1) % 4 - 1


class _Times:
    """Presentation times from packets: sorted, unique, with what is needed to find safe starts."""

    def __init__(self, pts: np.ndarray, dts: np.ndarray, key: np.ndarray, discarded_key_first: bool) -> None:
        self.pts, self.dts, self.key = pts, dts, key
        self.sorted = np.sort(pts)
        self.discarded_key_first = discarded_key_first
        self.damage: str | None = None

    @classmethod
    def of(cls, packets: PacketList) -> _Times | None:
        """None if times are missing or doubled."""
        if None in packets.pts or len(set(packets.pts)) != len(packets.pts):
            return None
        dts = np.array([NO_DTS if t is None else t for t in packets.dts], dtype=np.int64)
        pts = np.array(packets.pts, dtype=np.int64)
        return cls(pts, dts, np.array(packets.key, dtype=bool), packets.discarded_key_first)

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
        """(frame number, dts) of the starts: frame 0, and each key shown after all packets before it."""
        latest = np.maximum.accumulate(self.pts)
        before = np.concatenate([[np.iinfo(np.int64).min], latest[:-1]])
        safe = self.key & (self.pts > before) & (self.pts > self.sorted[0])
        numbers = np.searchsorted(self.sorted, self.pts[safe])
        return [(0, NO_DTS), *zip(numbers.tolist(), self.dts[safe].tolist(), strict=True)]


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


def _regular_index(
    packets: PacketList, head: _Head, times: _Times, keys: Sequence[tuple[int, int]]
) -> VideoIndex:
    damage = [text for text in (times.damage, packets.damage, head.error) if text]
    return _index(packets, head, times.sorted, keys, regular=True, damage="; ".join(damage) or None)


def _index_by_decoding(video: Opened, packets: PacketList, head: _Head, beat: Beat) -> VideoIndex:
    frames = FrameStream(video)
    shown: list[int | None] = []
    for frame in frames:
        beat()
        shown.append(frame.pts)
    if not shown:
        raise MediaError("no_frames", f"{video.uri}: not one frame can be decoded ({frames.error})")
    pts = _increasing(shown, packets.frame_duration)
    damage = "; ".join(dict.fromkeys(text for text in (packets.damage, frames.error) if text)) or None
    return _index(packets, head, pts, [(0, NO_DTS)], regular=False, damage=damage)


def _increasing(shown: Sequence[int | None], step: int) -> np.ndarray:
    """Times for frames in display order: the given ones sorted; if not usable, each a step after the last."""
    given = sorted(t for t in shown if t is not None)
    if len(given) == len(shown) and len(set(given)) == len(given):
        return np.array(given, dtype=np.int64)
    out: list[int] = []
    for time in shown:
        last = out[-1] if out else None
        if time is None or (last is not None and time <= last):
            time = 0 if last is None else last + step
        out.append(time)
    return np.array(out, dtype=np.int64)


def _index(
    packets: PacketList,
    head: _Head,
    pts: np.ndarray,
    keys: Sequence[tuple[int, int]],
    *,
    regular: bool,
    damage: str | None,
) -> VideoIndex:
    num, den = packets.time_base
    span = int(pts[-1] - pts[0]) + (packets.last_duration or packets.frame_duration)
    return VideoIndex(
        codec=packets.codec,
        container=packets.container,
        pix_fmt=head.pix_fmt,
        width=head.width,
        height=head.height,
        rotation=head.rotation,
        time_base_num=num,
        time_base_den=den,
        declared_frames=packets.declared,
        duration_s=span * num / den,
        frame_pts=pts,
        key_indices=np.array([number for number, _ in keys], dtype=np.int64),
        key_dts=np.array([dts for _, dts in keys], dtype=np.int64),
        regular=regular,
        damage=damage,
    )
