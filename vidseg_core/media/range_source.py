"""A source whose bytes are asked for in ranges: what all kinds of object storage have in common."""

from __future__ import annotations

import io
from collections import OrderedDict

from vidseg_core.media.errors import MediaError
from vidseg_core.media.source import BAD_PLACE, neutral_name

BLOCK = 1 << 20
MAX_AHEAD = 8
CACHED_BLOCKS = 24


class RangeSource(io.RawIOBase):
    """A block cache over `_range`, which a subclass has; asks for more while reading runs forward."""

    damage: str | None = None

    def __init__(self, uri: str, size: int) -> None:
        super().__init__()
        self.uri, self.size, self.name = uri, size, neutral_name(uri)
        self._position, self._next_block, self._ahead = 0, 0, 1
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def _range(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`. Raises MediaError."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = {0: 0, 1: self._position, 2: self.size}[whence]
        if base + offset < 0:
            return BAD_PLACE
        self._position = base + offset
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        stop = self.size if size < 0 else min(self.size, self._position + size)
        parts = []
        while self._position < stop:
            block = self._block(self._position // BLOCK)
            start = self._position % BLOCK
            part = block[start : start + stop - self._position]
            parts.append(part)
            self._position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._fetch(number)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, number: int) -> None:
        """One request for 1 block, doubled up to `MAX_AHEAD` blocks while reads follow one another."""
        self._ahead = min(MAX_AHEAD, self._ahead * 2) if number == self._next_block else 1
        start = number * BLOCK
        stop = min(self.size, start + self._ahead * BLOCK)
        data = self._range(start, stop)
        if len(data) != stop - start:
            text = f"{self.uri}: the service returned {len(data)} of {stop - start} bytes"
            raise MediaError("unreadable", text)
        for offset in range(0, len(data), BLOCK):
            self._blocks[number + offset // BLOCK] = data[offset : offset + BLOCK]
        self._next_block = number + self._ahead
        while len(self._blocks) > CACHED_BLOCKS:
            self._blocks.popitem(last=False)
