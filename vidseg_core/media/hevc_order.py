"""Whether an HEVC picture in the middle of a stream is shown after all pictures before it.

Model: a decoder that runs through a clean random access picture (CRA) numbers it from the pictures before
(picture order count, ITU-T H.265, 8.3.1); one that starts there numbers from it. In a sound stream both show
the same. Where recordings were cut and joined, the number may fall back, and the decoder that runs through
shows less, in another order.
Invariant: `moves_on` is True only if the count of the picture is above all counts since the last picture that
every decoder starts anew at (IDR, BLA, after an end of sequence).
"""

from __future__ import annotations

from vidseg_core.media.bits import Bits

_BLA, _CRA, _EOS, _SPS, _PPS = range(16, 19), 21, 36, 33, 34
_IDR = (19, 20)
_HEAD = 96
"""Bytes of a unit that hold all that is read here, after the two of its header."""


class PictureOrder:
    """Follows the first slice of each picture; every NAL unit of the stream goes through `read`."""

    def __init__(self) -> None:
        self._sps: dict[int, tuple[int, bool]] = {}
        self._pps: dict[int, tuple[int, bool, int]] = {}
        self._before = self._most = 0
        self._known = False
        self._ended = True
        self.fell_back = False
        """Whether a random access picture was numbered below one before it: recordings were joined here."""

    def read(self, unit: memoryview | bytes) -> bool:
        """For the first slice of a picture: whether it is shown after all before it. Else False."""
        kind = unit[0] >> 1 & 63
        try:
            if kind == _EOS:
                self._ended = True
            elif kind == _SPS:
                self._take_sps(Bits(unit[2:_HEAD]))
            elif kind == _PPS:
                self._take_pps(Bits(unit[2:_HEAD]))
            elif kind < 32:
                return self._take_slice(kind, (unit[1] & 7) - 1, Bits(unit[2:_HEAD]))
        except (IndexError, KeyError):
            self._known = False
        return False

    def _take_sps(self, bits: Bits) -> None:
        """7.3.2.2, to log2_max_pic_order_cnt_lsb_minus4."""
        bits.take(4)
        layers = bits.take(3)
        bits.take(1 + 96)
        present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
        bits.take(2 * (8 - layers) if layers else 0)
        for profile, level in present:
            bits.take(88 * profile + 8 * level)
        number = bits.golomb()
        planes = bits.golomb() == 3 and bool(bits.take(1))
        bits.golombs(2)
        if bits.take(1):
            bits.golombs(4)
        bits.golombs(2)
        self._sps[number] = (bits.golomb() + 4, planes)

    def _take_pps(self, bits: Bits) -> None:
        """7.3.2.3.1, to num_extra_slice_header_bits."""
        number, sps = bits.golomb(), bits.golomb()
        bits.take(1)
        self._pps[number] = (sps, bool(bits.take(1)), bits.take(3))

    def _take_slice(self, kind: int, layer: int, bits: Bits) -> bool:
        """7.3.6.1 and 8.3.1."""
        if not bits.take(1):
            return False
        if 16 <= kind <= 23:
            bits.take(1)
        sps, has_output_flag, extra = self._pps[bits.golomb()]
        width, planes = self._sps[sps]
        bits.take(extra)
        bits.golomb()
        bits.take(has_output_flag + 2 * planes)
        low = 0 if kind in _IDR else bits.take(width)
        anew = self._ended or kind in _IDR or kind in _BLA
        count = low if anew else self._nearest(low, 1 << width)
        moves_on = anew or (self._known and count > self._most)
        self.fell_back |= self._known and kind == _CRA and not moves_on
        self._most = count if anew else max(self._most, count)
        self._known |= anew
        self._ended = False
        if layer == 0 and not (kind < 16 and kind % 2 == 0) and not 6 <= kind <= 9:
            self._before = count
        return moves_on

    def _nearest(self, low: int, span: int) -> int:
        """The count with these low bits that is nearest to the last reference's."""
        high = self._before - self._before % span
        gap = low - self._before % span
        return high + low + (span if gap <= -span // 2 else -span if gap > span // 2 else 0)
