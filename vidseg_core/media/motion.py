"""Motion vectors as they travel with a frame: for each block, where it lies in a frame that came before.

Model: H.264 and MPEG-4 predict a block from another picture, its reference, and FFmpeg hands the vectors out
(`export_mvs`), but not which reference is meant. The nearest is taken: of the pictures that others may refer
to and that were decoded before, the last one that is shown before the frame. That is what encoders put first
in their lists. A block of a B picture that looks forward only is mirrored: motion goes on evenly between the
two references, as H.264's temporal direct mode has it (ITU-T H.264, 8.4.1.2.3). Where a reference is left out
(`DecodeUnit.kept`), its own vectors lead on to a frame that is delivered.

Nothing is known of a frame that is damaged, interlaced or mostly intra (a cut), of one whose reference is
unknown, of the B pictures of MPEG-4, and of H.264 that is cropped at left or top: who wants their motion has
to estimate it.

Invariant: what is said of a frame depends on the file, the unit and the frames that are delivered, never on
shards, nor on where decoding was taken up.

Imports numpy and PyAV only. Legend: h, w rows and columns of cells, 2 = (u, v).
"""

from __future__ import annotations

import struct
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from av.codec.context import Flags2
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidseg_core.media.h264_crop import begins_elsewhere
from vidseg_core.media.nal_units import h264_header, h264_refers, mpeg4_refers

CODECS = ("h264", "mpeg4")
"""Codecs whose vectors are used, FFmpeg's names."""
CELL = 8
"""Sides of a cell, pixels: the smallest block that FFmpeg tells apart."""
UNKNOWN = np.int16(-(1 << 15))
"""In both numbers of a cell: no vector (an intra block)."""
_LONGEST = (1 << 15) - 1
_BLOCKS = ((16, 16), (16, 8), (8, 16), (8, 8))
"""(width, height) of what has a vector of its own."""
_MOST_INTRA = 0.5
"""Share of cells without a vector above which a frame counts as one that refers to nothing."""
_MOST_MIRRORED = 16
"""Times the way to the next reference that motion is taken to go on backwards: B pictures in a row."""
_REMEMBERED = 16
"""Reference pictures that are remembered: a decoder holds no more."""
_HEAD = struct.Struct("<6i")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Motion:
    """What the stream says of a frame's motion."""

    since: int
    """Frames from the one that it refers to, by number; 0: its motion is unknown."""
    oldest: int
    """Frames from the earliest one that any later frame may refer to."""
    is_reference: bool
    """Whether later frames may refer to this one."""
    width: int
    """Decoded size, before rotation, pixels."""
    height: int
    cells_hw2: np.ndarray | None = None
    """int16, quarter pixels of the decoded picture, before rotation: what is seen in a cell at (x, y) lies at
    (x + u, y + v) in the frame referred to. None where the motion is unknown."""
    rotation: int = 0
    """Degrees, counter-clockwise, by which all of it is still to be turned."""

    @property
    def is_still(self) -> bool:
        """Whether every block is known and where it was."""
        return self.cells_hw2 is not None and not self.cells_hw2.any()

    def to_bytes(self) -> bytes:
        numbers = self.since, self.oldest, self.is_reference, self.width, self.height, self.rotation
        head = _HEAD.pack(*numbers)
        return head if self.cells_hw2 is None else head + self.cells_hw2.tobytes()

    @staticmethod
    def from_bytes(data: bytes) -> Motion | None:
        """Inverse of `to_bytes`; None for what cannot be one (a subverted child may have sent it)."""
        if len(data) < _HEAD.size:
            return None
        since, oldest, is_reference, width, height, rotation = _HEAD.unpack_from(data)
        if rotation not in (0, 90, 180, -90):
            return None
        cells_hw2 = None
        if since > 0:
            shape = (*_grid(width, height), 2)
            if min(shape) < 1 or len(data) != _HEAD.size + 2 * shape[0] * shape[1] * 2:
                return None
            cells_hw2 = np.frombuffer(data[_HEAD.size :], np.int16).reshape(shape)
        return Motion(
            since=max(0, since),
            oldest=max(0, oldest),
            is_reference=bool(is_reference),
            width=width,
            height=height,
            cells_hw2=cells_hw2,
            rotation=rotation,
        )


def most_bytes(width: int, height: int) -> int:
    """What the motion of a picture of this decoded size takes."""
    rows, columns = _grid(width, height)
    return _HEAD.size + 4 * rows * columns


def _grid(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of cells that cover a picture."""
    return -(-height // CELL), -(-width // CELL)


@dataclass(frozen=True, slots=True)
class _Fed:
    """A picture that has gone into the decoder."""

    is_reference: bool
    before: int | None
    """Time of the nearest reference that is shown before it."""
    after: int | None


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a picture's blocks lie in a frame that is delivered."""

    ordinal: int
    cells_hw2: np.ndarray | None
    """None: it is that frame itself."""


class MotionReader:
    """Reads the motion of one unit's frames: `feed` every packet, then `read` every frame that comes out."""

    @staticmethod
    def of(codec: VideoCodecContext, rotation: int) -> MotionReader | None:
        """For a codec that has not been opened yet; None: it has no vectors. `rotation`: degrees by which the
        pictures are to be turned."""
        if codec.codec.canonical_name not in CODECS:
            return None
        codec.flags2 |= Flags2.export_mvs
        return MotionReader(_refers_for(codec), rotation, b_pictures=codec.codec.canonical_name == "h264")

    def __init__(
        self, refers: Callable[[memoryview], bool | None], rotation: int, *, b_pictures: bool
    ) -> None:
        """`b_pictures`: FFmpeg keeps their vectors; else what it hands out for them is zeros."""
        self._refers, self._rotation, self._b_pictures = refers, rotation, b_pictures
        self._references: list[int] = []
        self._fed: dict[int, _Fed] = {}
        self._shown: dict[int, _Origin | None] = {}
        """Reference pictures that came out, by time; None: nothing leads on from them."""
        self._is_lost = False

    def feed(self, packet: Packet[VideoStream]) -> None:
        """A packet that is about to be decoded."""
        if packet.pts is None or not packet.size or self._is_lost:
            return
        is_reference = self._refers(memoryview(packet))
        if is_reference is None:
            self._is_lost = True
            return
        place = bisect_left(self._references, packet.pts)
        self._fed[packet.pts] = _Fed(
            is_reference,
            before=self._references[place - 1] if place else None,
            after=self._references[place] if place < len(self._references) else None,
        )
        if is_reference:
            insort(self._references, packet.pts)
            del self._references[:-_REMEMBERED]

    def read(
        self, ordinal: int, frame: VideoFrame, *, is_delivered: bool, is_wanted: bool = True
    ) -> Motion | None:
        """Motion of the unit's frame number `ordinal`, the next one that came out; None: nothing is known.

        `is_wanted`: False for a delivered frame that is delivered elsewhere.
        """
        now = frame.pts
        fed = None if now is None or self._is_lost else self._fed.pop(now, None)
        if now is None or fed is None:
            return None
        is_asked = is_wanted if is_delivered else fed.is_reference
        origin = self._origin(frame, now, fed) if is_asked else None
        if fed.is_reference:
            self._shown[now] = _Origin(ordinal, None) if is_delivered else origin
        oldest = self._forget(now, ordinal)
        if not (is_delivered and is_wanted):
            return None
        return Motion(
            since=0 if origin is None else ordinal - origin.ordinal,
            oldest=ordinal - oldest,
            is_reference=fed.is_reference,
            width=frame.width,
            height=frame.height,
            cells_hw2=None if origin is None else origin.cells_hw2,
            rotation=self._rotation,
        )

    def _forget(self, now: int, ordinal: int) -> int:
        """Forget what no later frame refers to; the number of the earliest delivered frame that one may."""
        self._fed = {time: fed for time, fed in self._fed.items() if time > now}
        needed = {fed.before for fed in self._fed.values()} | {max(self._shown, default=None)}
        self._shown = {time: origin for time, origin in self._shown.items() if time in needed}
        known = [origin.ordinal for origin in self._shown.values() if origin is not None]
        return min([ordinal, *known])

    def _origin(self, frame: VideoFrame, now: int, fed: _Fed) -> _Origin | None:
        before = None if fed.before is None else self._shown.get(fed.before)
        if before is None or frame.is_corrupt or frame.interlaced_frame:
            return None
        if not (fed.is_reference or self._b_pictures):
            return None
        data: Any = frame.side_data.get("MOTION_VECTORS")
        if data is None:
            return None
        vectors, size = data.to_ndarray(), (frame.width, frame.height)
        cells_hw2 = rasterised(vectors[vectors["source"] < 0], *size)
        if fed.after is not None and fed.before is not None:
            share = (now - fed.before) / (fed.after - now)
            ahead_hw2 = rasterised(vectors[vectors["source"] > 0], *size)
            cells_hw2 = _mirrored_in(cells_hw2, ahead_hw2, share)
        if before.cells_hw2 is not None:
            if before.cells_hw2.shape != cells_hw2.shape:
                return None
            cells_hw2 = led_on(cells_hw2, before.cells_hw2)
        if np.count_nonzero(cells_hw2[..., 0] == UNKNOWN) > _MOST_INTRA * cells_hw2[..., 0].size:
            return None
        return _Origin(before.ordinal, cells_hw2)


def rasterised(vectors: np.ndarray, width: int, height: int) -> np.ndarray:
    """cells_hw2 of PyAV's vectors of one direction; the last of two for a cell counts."""
    rows, columns = 2 * -(-height // 16), 2 * -(-width // 16)
    cells_hw2 = np.full((rows, columns, 2), UNKNOWN, np.int16)
    for block in _BLOCKS:
        chosen = vectors[(vectors["w"] == block[0]) & (vectors["h"] == block[1])]
        if not len(chosen):
            continue
        left = (chosen["dst_x"] - block[0] // 2) // CELL
        top = (chosen["dst_y"] - block[1] // 2) // CELL
        fits = (left >= 0) & (top >= 0) & (left < columns - block[0] // CELL + 1)
        fits &= top < rows - block[1] // CELL + 1
        quarters = 4 // np.maximum(chosen["motion_scale"], 1).astype(np.int32)
        moved_n2 = np.stack([chosen["motion_x"] * quarters, chosen["motion_y"] * quarters], axis=1)
        left, top, moved_n2 = left[fits], top[fits], moved_n2[fits].astype(np.int16)
        for down in range(block[1] // CELL):
            for right in range(block[0] // CELL):
                cells_hw2[top + down, left + right] = moved_n2
    shown = _grid(width, height)
    return np.ascontiguousarray(cells_hw2[: shown[0], : shown[1]])


def _mirrored_in(past_hw2: np.ndarray, ahead_hw2: np.ndarray, share: float) -> np.ndarray:
    """Cells of a B picture: backwards where they look back, else forwards, mirrored. `share`: time to the
    reference before it over time to the one after; unknown where that is a pause.

    A partition that looks forward only has a vector of zeros in the other list: it does not count against one
    that moves.
    """
    mirrored_hw2 = np.full_like(ahead_hw2, UNKNOWN)
    if share <= _MOST_MIRRORED:
        mirrored_hw2 = _in_cells(np.round(ahead_hw2 * np.float32(-share)))
    is_ahead_hw = ahead_hw2[..., 0] != UNKNOWN
    is_still_hw = (past_hw2[..., 0] == 0) & (past_hw2[..., 1] == 0)
    is_bare_hw = is_still_hw | (past_hw2[..., 0] == UNKNOWN)
    return np.where((is_ahead_hw & is_bare_hw)[..., None], mirrored_hw2, past_hw2)


def led_on(cells_hw2: np.ndarray, before_hw2: np.ndarray) -> np.ndarray:
    """Two steps of motion as one: each cell's own, and that of the cell of the reference where it ends."""
    rows, columns = cells_hw2.shape[:2]
    steps_hw2 = np.round(cells_hw2 / np.float32(4 * CELL)).astype(np.int32)
    y_hw = np.clip(np.arange(rows)[:, None] + steps_hw2[..., 1], 0, rows - 1)
    x_hw = np.clip(np.arange(columns) + steps_hw2[..., 0], 0, columns - 1)
    further_hw2 = before_hw2[y_hw, x_hw]
    is_known_hw = (cells_hw2[..., 0] != UNKNOWN) & (further_hw2[..., 0] != UNKNOWN)
    both_hw2 = _in_cells(cells_hw2.astype(np.int32) + further_hw2)
    return np.where(is_known_hw[..., None], both_hw2, UNKNOWN)


def _in_cells(vectors_hw2: np.ndarray) -> np.ndarray:
    """As int16, what is too long as long as may be."""
    return np.clip(vectors_hw2, -_LONGEST, _LONGEST).astype(np.int16)


def _refers_for(codec: VideoCodecContext) -> Callable[[memoryview], bool | None]:
    """Says of a packet whether later pictures may refer to it; None: that cannot be known."""
    if codec.codec.canonical_name == "mpeg4":
        return mpeg4_refers
    sets, length_bytes = h264_header(codec.extradata or b"")
    if any(map(begins_elsewhere, sets or ())):
        return lambda data: None
    return lambda data: h264_refers(data, length_bytes)


def without_motion(codec: str, *, is_regular: bool, fits: bool = True) -> str | None:
    """Why a video's stream says nothing of its motion, in words; None: it does. `fits`: its vectors have room
    beside pictures of the working size."""
    if codec not in CODECS:
        return f"no motion vectors in {codec}: flow by DIS"
    if not is_regular:
        return "its packets do not give its frames: no motion vectors, flow by DIS"
    return None if fits else "its motion vectors are too many for so small a working size: flow by DIS"
