"""A source whose bytes are asked for in ranges: what all kinds of object storage have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict

from vidseg_core.media.errors import MediaError
from vidseg_core.media.source import PieceSource, neutral_name

BLOCK = 1 << 20
MAX_AHEAD = 8
CACHED_BLOCKS = 24


class RangeSource(PieceSource):
    """A block cache over `_range`, which a subclass has; asks for more while reading runs forward."""

    def __init__(self, uri: str, size: int) -> None:
        super().__init__()
        self.uri, self.size, self.name = uri, size, neutral_name(uri)
        self._next_block, self._ahead = 0, 1
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    @abstractmethod
    def _range(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`. Raises MediaError."""

    def _piece(self, position: int) -> tuple[int, bytes]:
        number = position // BLOCK
        return number * BLOCK, self._block(number)

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
