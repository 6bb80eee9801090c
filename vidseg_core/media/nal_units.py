"""Where a decoder may start in H.264 and HEVC: pictures that begin anew, with the parameter sets they need.

Model: a packet is a run of NAL units, each after its length or between start codes. Parameter sets hold until
others of their number come; a start either needs none but those of the stream's header, since no packet has
ever brought any, or brings all that packets ever brought.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from vidseg_core.media.h264_crop import begins_elsewhere
from vidseg_core.media.hevc_order import PictureOrder

_SET, _START, _OTHER_PICTURE, _REST = range(4)
"""Kinds of NAL units: parameter set, slice of a picture to start at, slice of another one, anything else."""
_PICTURES = (_START, _OTHER_PICTURE)
Kind = Callable[[int], int]
Header = tuple[frozenset[bytes] | None, int]
"""Parameter sets that the stream's header holds (None: it cannot be read); bytes of the length before each
NAL unit of a packet (0: units stand between start codes)."""


class _ParameterSets:
    """Parameter sets: they stand in the stream's header, or a start brings all that ever came in packets."""

    def __init__(self, header: Header, kind: Kind) -> None:
        self._header, self._length_bytes = header
        self._kind = kind
        self._seen: set[bytes] = set()
        self.brought: set[bytes] = set()
        """Parameter sets that the last packet brought before its picture."""

    def sees(self, data: memoryview) -> bool:
        self.brought = set()
        picture: int | None = None
        for unit in _nal_units(data, self._length_bytes):
            kind = self._kind(unit[0])
            if kind == _SET:
                found = bytes(unit).rstrip(b"\0")
                self._seen.add(found)
                if picture is None:  # those that follow it are for the next
                    self.brought.add(found)
            elif kind != _REST and picture is None:
                picture = kind
        return self._header is not None and picture == _START and self._seen <= self.brought


class H264Starts:
    """An IDR picture with its parameter sets.

    FFmpeg decodes some streams of x264 by the encoder's number, which stands in the first packet only:
    lossless ones and 4:4:4 (profile 244), and all of its first years. These have no other start.
    """

    _OLDEST = 34

    def __init__(self, header: Header) -> None:
        self._sets = _ParameterSets(header, _h264_kind)
        self._by_number = any(map(self._is_244, header[0] or ()))
        self._length_bytes = header[1]
        self._is_first = True

    def sees(self, data: memoryview) -> bool:
        if self._is_first:
            self._is_first = False
            said = re.search(rb"x264 - core (\d+)", bytes(data[:4096]))
            self._by_number |= said is not None and int(said[1]) < self._OLDEST
        proven = self._sets.sees(data)
        self._by_number |= any(map(self._is_244, self._sets.brought))
        return proven and not self._by_number

    @staticmethod
    def _is_244(unit: bytes) -> bool:
        return unit[0] & 31 == 7 and unit[1:2] == b"\xf4"


class HevcStarts:
    """An IRAP picture with its parameter sets that is shown after all before it.

    Film grain that is described once stays in force, also after pictures that everything else begins anew at.
    """

    def __init__(self, header: Header) -> None:
        self._sets, self.order = _ParameterSets(header, _hevc_kind), PictureOrder()
        self._length_bytes, self._has_grain = header[1], False
        for unit in header[0] or ():
            self.order.read(unit)

    def sees(self, data: memoryview) -> bool:
        moves_on = False
        for unit in _nal_units(data, self._length_bytes):
            moves_on |= self.order.read(unit)
            self._has_grain |= unit[0] >> 1 & 63 == _PREFIX_SEI and _FILM_GRAIN in _sei_types(bytes(unit[2:]))
        return self._sets.sees(data) and moves_on and not self._has_grain


_PREFIX_SEI, _FILM_GRAIN = 39, 19


def _sei_types(payload: bytes) -> set[int]:
    """Types of the messages of an SEI unit (ITU-T H.265, 7.3.5)."""
    found, at = set[int](), 0
    while at + 2 <= len(payload):
        numbers = [0, 0]
        for place in (0, 1):
            while at < len(payload) and payload[at] == 0xFF:
                numbers[place] += 255
                at += 1
            numbers[place] += payload[at] if at < len(payload) else 0
            at += 1
        found.add(numbers[0])
        at += numbers[1]
    return found


def _nal_units(data: memoryview, length_bytes: int) -> Iterator[memoryview]:
    """The NAL units of a packet, none of them empty; ends where the packet makes no sense."""
    if length_bytes and data[:4] == b"\0\0\0\1":
        return  # start codes in spite of the header: FFmpeg reads them so, nothing is proven here
    if length_bytes:
        at = 0
        while at + length_bytes < len(data):
            size = int.from_bytes(data[at : at + length_bytes], "big")
            at += length_bytes
            if not 0 < size <= len(data) - at:
                return
            yield data[at : at + size]
            at += size
        return
    for at, stop in start_codes(bytes(data)):
        yield data[at:stop]


def start_codes(data: bytes) -> Iterator[tuple[int, int]]:
    """(begin, end) of what follows each start code 00 00 01, if it is anything."""
    at = data.find(b"\0\0\1")
    while at >= 0:
        stop = data.find(b"\0\0\1", at + 3)
        end = stop if stop >= 0 else len(data)
        if at + 3 < end:
            yield at + 3, end
        at = stop


def _h264_kind(first: int) -> int:
    """ITU-T H.264, table 7-1."""
    number = first & 31
    if number in (7, 8):
        return _SET
    return _START if number == 5 else _OTHER_PICTURE if 1 <= number <= 4 else _REST


def _hevc_kind(first: int) -> int:
    """ITU-T H.265, table 7-1."""
    number = first >> 1 & 63
    if number in (32, 33, 34):
        return _SET
    return _START if 16 <= number <= 21 else _OTHER_PICTURE if number < 32 else _REST


def h264_header(extradata: bytes) -> Header:
    """The header in an `avcC` record (ISO/IEC 14496-15, 5.3.3.1), or in units with start codes."""
    if not extradata.startswith(b"\1"):
        return _plain_sets(extradata, _h264_kind), 0
    try:
        found, at = _prefixed(extradata, 6, extradata[5] & 31)
        more, _ = _prefixed(extradata, at + 1, extradata[at])
    except (IndexError, ValueError):
        return None, 0
    return frozenset(found + more), (extradata[4] & 3) + 1


def hevc_header(extradata: bytes) -> Header:
    """The header in an `hvcC` record (ISO/IEC 14496-15, 8.3.3.1), or in units with start codes."""
    if extradata[:3] in (b"", b"\0\0\0", b"\0\0\1"):
        return _plain_sets(extradata, _hevc_kind), 0
    found: list[bytes] = []
    try:
        at = 23
        for _ in range(extradata[22]):
            units, at = _prefixed(extradata, at + 3, int.from_bytes(extradata[at + 1 : at + 3], "big"))
            found += units
    except (IndexError, ValueError):
        return None, 0
    return frozenset(found), (extradata[21] & 3) + 1


def _plain_sets(extradata: bytes, kind: Kind) -> frozenset[bytes]:
    units = (extradata[at:stop] for at, stop in start_codes(extradata))
    return frozenset(unit.rstrip(b"\0") for unit in units if kind(unit[0]) == _SET)


def _prefixed(data: bytes, at: int, count: int) -> tuple[list[bytes], int]:
    """`count` units, each after its length in 16 bits, from `at` on; and where they end."""
    units = []
    for _ in range(count):
        size = int.from_bytes(data[at : at + 2], "big")
        at += 2 + size
        if not size or at > len(data):
            raise ValueError("cut short")
        units.append(data[at - size : at].rstrip(b"\0"))
    return units, at


def h264_refers(data: memoryview, length_bytes: int) -> bool | None:
    """Whether pictures may refer to the one in a packet: nal_ref_idc of its first slice (H.264, 7.4.1).

    None where a parameter set before it says that its corner is cut off.
    """
    for unit in _nal_units(data, length_bytes):
        if begins_elsewhere(unit):
            return None
        if _h264_kind(unit[0]) in _PICTURES:
            return bool(unit[0] & 0x60)
    return False


def mpeg4_refers(data: memoryview) -> bool | None:
    """Whether pictures may refer to the one in a packet: a VOP that is no B-VOP (ISO/IEC 14496-2, 6.2.5).

    None for several in one packet, as old AVI files have them.
    """
    kinds = [data[at + 1] >> 6 for at, stop in start_codes(bytes(data)) if data[at] == 0xB6 and stop > at + 1]
    return None if len(kinds) > 1 else kinds not in ([], [2])
