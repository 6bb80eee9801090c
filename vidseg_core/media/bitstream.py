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

from collections.abc import Callable, Iterator

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vidseg_core.media.hevc_order import PictureOrder
from vidseg_core.media.nal_units import H264Starts, HevcStarts, h264_header, hevc_header, start_codes

INTRA_ONLY = frozenset(
    {
        "dnxhd",
        "dvvideo",
        "ffvhuff",
        "hap",
        "huffyuv",
        "jpeg2000",
        "magicyuv",
        "png",
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

STANDS_ALONE = INTRA_ONLY | {"mjpeg"}
"""Codecs of which any packets may be left out, where each may be the first."""

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
            return H264Starts(h264_header(extradata)).sees
        if name == "hevc":
            hevc = HevcStarts(hevc_header(extradata))
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
    for at, stop in start_codes(bytes(data)):
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
