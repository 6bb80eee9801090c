"""What a packet says of itself: whether a fresh decoder may start at it, and whether it is shown at all.

Model: a container's key flag is a claim. The bitstream is the proof: an intra-only codec, an H.264 IDR, an
HEVC IRAP, a VP8, VP9 or AV1 key frame, an MPEG-1/2 I picture in a closed group after its sequence header.
What a decoder must have read before (parameter sets, tables of JPEG) has to be in the packet itself or in the
header that every decoder is opened with.
Invariant: `StartProof.sees` is True only where a decoder opened anew and fed from this packet on gives the
pictures that one run from the first packet gives. Doubt is False: it costs parallel work, never a picture.

Every packet of the stream goes through `sees`, in file order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vidseg_core.media.hevc_order import PictureOrder

INTRA_ONLY = frozenset(
    {
        "dnxhd",
        "dvvideo",
        "ffvhuff",
        "hap",
        "huffyuv",
        "jpeg2000",
        "magicyuv",
        "prores",
        "r10k",
        "r210",
        "rawvideo",
        "utvideo",
        "v210",
        "v308",
        "v408",
        "v410",
        "yuv4",
    }
)
"""Codecs (FFmpeg's names) whose every packet is a picture that needs nothing but the stream's header."""

ONE_PACKET_ONE_FRAME = INTRA_ONLY | {"mjpeg", "h264", "hevc", "vp8", "vp9", "av1"}
"""Codecs of which a sound stream shows a frame for each packet that is not hidden (fields aside)."""

HARMLESS_SIDE_DATA = frozenset(
    {
        "a53_cc",
        "afd",
        "ambient_viewing_environment",
        "content_light_level",
        "cpb_properties",
        "display_matrix",
        "dovi_conf",
        "dynamic_hdr10_plus",
        "icc_profile",
        "mastering_display_metadata",
        "matroska_block_additional",
        "metadata_update",
        "mpegts_stream_id",
        "prft",
        "quality_stats",
        "rtcp_sr",
        "s12m_timecode",
        "skip_samples",
        "spherical",
        "stereo_3d",
        "strings_metadata",
    }
)
"""Side data of packets that no decoder keeps. A palette or new parameters it does keep."""


Reader = Callable[[memoryview], bool]


class StartProof:
    """Reads the packets of one stream in file order; see the module."""

    def __init__(self, codec: VideoCodecContext) -> None:
        self._hevc: PictureOrder | None = None
        self._sees = self._reader_for(codec)
        self._carries_state = False

    @property
    def is_joined(self) -> bool:
        """Whether the bitstream shows that recordings were joined in the middle of their pictures."""
        return self._hevc is not None and self._hevc.fell_back

    def sees(self, packet: Packet[VideoStream]) -> bool:
        """Whether decoding may start at this packet."""
        if self._sees is None or self._carries_state:
            return False
        if any(side.data_type not in HARMLESS_SIDE_DATA for side in packet.iter_sidedata()):
            self._carries_state = True
            return False
        return self._sees(memoryview(packet))

    def _reader_for(self, codec: VideoCodecContext) -> Reader | None:
        """The proof for a codec; None: there is none."""
        extradata, name = codec.extradata or b"", codec.codec.canonical_name
        if name == "h264":
            return _H264(_h264_header(extradata)).sees
        if name == "hevc":
            hevc = _Hevc(_hevc_header(extradata))
            self._hevc = hevc.order
            return hevc.sees
        if name == "av1":
            return _Av1(extradata).sees
        if name == "mjpeg":
            return _Jpeg().sees
        if name in INTRA_ONLY:
            return lambda data: True
        return _SIMPLE.get(name)


def is_hidden(codec: str, packet: Packet[VideoStream]) -> bool:
    """Whether a packet is a reference that is never shown.

    VP8: `show_frame` is not set (RFC 6386, section 9.1). VP9: neither `show_frame` nor `show_existing_frame`
    is (bitstream specification, section 6.2), in a packet that is no superframe (annex B).
    """
    data = memoryview(packet)
    if codec == "vp8":
        return not data[0] & 0x10
    if codec == "vp9":
        existing, _, shown = _vp9_flags(data[0])
        return not existing and not shown and data[-1] & 0xE0 != 0xC0
    return False


# --- H.264 and HEVC ----------------------------------------------------------------------------------------

_SET, _START, _OTHER_PICTURE, _REST = range(4)
"""Kinds of NAL units: parameter set, slice of a picture to start at, slice of another one, anything else."""
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
        """By the last packet before its picture."""

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


class _H264:
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


class _Hevc:
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
    for at, stop in _start_codes(bytes(data)):
        yield data[at:stop]


def _start_codes(data: bytes) -> Iterator[tuple[int, int]]:
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


def _h264_header(extradata: bytes) -> Header:
    """Of an `avcC` record (ISO/IEC 14496-15, 5.3.3.1), or of units with start codes."""
    if not extradata.startswith(b"\1"):
        return _plain_sets(extradata, _h264_kind), 0
    try:
        found, at = _prefixed(extradata, 6, extradata[5] & 31)
        more, _ = _prefixed(extradata, at + 1, extradata[at])
    except (IndexError, ValueError):
        return None, 0
    return frozenset(found + more), (extradata[4] & 3) + 1


def _hevc_header(extradata: bytes) -> Header:
    """Of an `hvcC` record (ISO/IEC 14496-15, 8.3.3.1), or of units with start codes."""
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
    units = (extradata[at:stop] for at, stop in _start_codes(extradata))
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


# --- the others --------------------------------------------------------------------------------------------


class _Av1:
    """A shown key frame with the sequence header that is in force (AV1 specification, 5.9.2 and 7.6.1)."""

    _SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6

    def __init__(self, extradata: bytes) -> None:
        header = memoryview(extradata)[4:] if extradata[:1] == b"\x81" else memoryview(b"")
        self._header = {bytes(body) for kind, body in _obus(header) if kind == self._SEQUENCE}
        self._seen: set[bytes] = set()

    def sees(self, data: memoryview) -> bool:
        brought: set[bytes] = set()
        for kind, body in _obus(data):
            if kind == self._SEQUENCE:
                brought.add(bytes(body))
            elif kind in (self._FRAME, self._FRAME_HEADER):
                self._seen |= brought
                if not self._seen <= self._header | brought or not self._seen or not body:
                    return False
                full = all(
                    header and not header[0] & 0x08 for header in self._seen
                )  # no reduced still picture
                return full and body[0] & 0xF0 == 0x10  # show_existing_frame 0, KEY_FRAME, show_frame 1
        self._seen |= brought
        return False


def _obus(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(type, payload) of the OBUs of a temporal unit; ends where it makes no sense."""
    at = 0
    while at < len(data):
        first = data[at]
        at += 2 if first & 4 else 1  # an extension byte
        size = len(data) - at
        if first & 2:
            size = shift = 0
            while at < len(data):
                byte = data[at]
                size |= (byte & 127) << shift
                at, shift = at + 1, shift + 7
                if byte < 128:
                    break
        if size < 0 or at + size > len(data):
            return
        yield first >> 3 & 15, data[at : at + size]
        at += size


class _Jpeg:
    """A picture that brings every table and every note that the stream has ever had (ITU-T T.81, B.2.4)."""

    def __init__(self) -> None:
        self._seen: set[int | bytes] = set()

    def sees(self, data: memoryview) -> bool:
        brought = _jpeg_tables(bytes(data))
        self._seen |= brought
        return any(isinstance(table, int) and table < 16 for table in brought) and self._seen <= brought


def _jpeg_tables(data: bytes) -> set[int | bytes]:
    """What a decoder keeps of what stands before the first scan.

    Quantisation tables (0 to 15), Huffman tables (from 256 on), which application segments there are (from
    512 on), and comments, by which FFmpeg knows encoders and colours.
    """
    found: set[int | bytes] = set()
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        place, stop = at + 4, min(at + 2 + size, len(data))
        if marker == 0xFE:
            found.add(data[place:stop])
        elif marker >> 4 == 0xE:
            found.add(512 + marker)
        while marker == 0xDB and place < stop:
            found.add(data[place] & 15)
            place += 129 if data[place] >> 4 else 65
        while marker == 0xC4 and place + 17 <= stop:
            found.add(256 + data[place])
            place += 17 + sum(data[place + 1 : place + 17])
        at += 2 + size
    return found


def _vp8_starts(data: memoryview) -> bool:
    """RFC 6386, section 9.1."""
    return not data[0] & 1


def _vp9_starts(data: memoryview) -> bool:
    existing, is_inter, _ = _vp9_flags(data[0])
    return data[0] >> 6 == 2 and not existing and not is_inter


def _vp9_flags(first: int) -> tuple[int, int, int]:
    """show_existing_frame, frame_type (0: key) and show_frame (VP9 bitstream specification, 6.2)."""
    shift = 0 if first & 0x30 == 0x30 else 1  # profile 3 has a reserved bit
    return first >> 2 + shift & 1, first >> 1 + shift & 1, first >> shift & 1


def _mpeg_starts(data: memoryview) -> bool:
    """Sequence header, closed group, I picture (ISO/IEC 13818-2, 6.3.3, 6.3.8 and 6.3.9)."""
    has_sequence = is_closed = False
    for at, stop in _start_codes(bytes(data)):
        code = data[at]
        if code == 0xB3:
            has_sequence = True
        elif code == 0xB8 and stop - at > 4:
            is_closed = bool(data[at + 4] & 0x40)
        elif code == 0 and stop - at > 2:
            return has_sequence and is_closed and data[at + 2] >> 3 & 7 == 1
    return False


_SIMPLE: dict[str, Reader] = {
    "vp8": _vp8_starts,
    "vp9": _vp9_starts,
    "mpeg1video": _mpeg_starts,
    "mpeg2video": _mpeg_starts,
}
