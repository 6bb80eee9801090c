"""Whether what an H.264 stream shows begins at the corner of what it codes: sequence parameter sets (ITU-T
H.264, 7.3.2.1.1).

Blocks and vectors count from the coded corner. FFmpeg cuts off rows above the picture and, as far as its
alignment allows, columns left of it, and does not say how many.
"""

from __future__ import annotations

from vidseg_core.media.bits import Bits

_CHROMA_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
"""Profiles whose sets say more of colours."""


def begins_elsewhere(unit: memoryview | bytes) -> bool:
    """Whether a sequence parameter set cuts off the left or the top, or cannot be read; False for other
    units."""
    if unit[0] & 31 != 7:
        return False
    try:
        return _cut(Bits(unit[1:]))
    except IndexError:
        return True


def _cut(bits: Bits) -> bool:
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile in _CHROMA_PROFILES:
        _skip_colours(bits)
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golombs(2)
        bits.golombs(bits.golomb())
    bits.golomb()
    bits.take(1)
    bits.golombs(2)
    if not bits.take(1):
        bits.take(1)
    bits.take(1)
    if not bits.take(1):
        return False
    left, _, top, _ = bits.golombs(4)
    return left > 0 or top > 0


def _skip_colours(bits: Bits) -> None:
    chroma = bits.golomb()
    bits.take(chroma == 3)
    bits.golombs(2)
    bits.take(1)
    if bits.take(1):
        for number in range(12 if chroma == 3 else 8):
            if bits.take(1):
                _skip_scaling(bits, 16 if number < 6 else 64)


def _skip_scaling(bits: Bits, size: int) -> None:
    """7.3.2.1.1.1: a list ends where the next number would be 0."""
    last = 8
    for _ in range(size):
        following = (last + bits.signed_golomb() + 256) % 256
        if not following:
            return
        last = following
