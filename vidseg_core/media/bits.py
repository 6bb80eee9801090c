"""Bits of NAL units, as the syntax tables of ITU-T H.264 and H.265 read them."""

from __future__ import annotations


class Bits:
    """Reads the payload of a NAL unit from its first bit on, emulation prevention taken out (7.4.2)."""

    def __init__(self, payload: memoryview | bytes) -> None:
        plain = bytes(payload).replace(b"\0\0\3", b"\0\0")
        self._bits, self._at = "".join(f"{byte:08b}" for byte in plain), 0

    def take(self, count: int) -> int:
        """The next `count` bits as a number. IndexError if they are not there."""
        self._at += count
        if self._at > len(self._bits):
            raise IndexError(count)
        return int(self._bits[self._at - count : self._at] or "0", 2)

    def golomb(self) -> int:
        """ue(v), 9.2."""
        zeros = self._bits.find("1", self._at) - self._at
        if zeros < 0:
            raise IndexError(zeros)
        self.take(zeros)
        return self.take(zeros + 1) - 1

    def golombs(self, count: int) -> list[int]:
        return [self.golomb() for _ in range(count)]

    def signed_golomb(self) -> int:
        """se(v), 9.1.1 of H.264."""
        number = self.golomb()
        return (number + 1) // 2 if number % 2 else -(number // 2)
