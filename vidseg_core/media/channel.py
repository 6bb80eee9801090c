"""Messages between parent and decode process: length-prefixed JSON plus raw bytes for integer arrays.

Model: a message is a JSON object (`head`) and one blob; int64 arrays travel in the blob, named with their
lengths in `head["arrays"]`. No pickle: the child reads untrusted files and may be subverted, so the parent
believes nothing but plain values.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Sink = Callable[[bytes], None]

_PREFIX = struct.Struct("<QQ")
MAX_MESSAGE = 1 << 31


class ChannelClosed(Exception):
    """The other side is gone."""


def pack(head: Mapping[str, Any]) -> bytes:
    """Bytes of a message; numpy arrays among the values (int64, one-dimensional) go into the blob."""
    arrays = {name: value for name, value in head.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in head.items() if name not in arrays}
    plain["arrays"] = {name: len(value) for name, value in arrays.items()}
    text = json.dumps(plain).encode("ascii")
    blob = b"".join(np.ascontiguousarray(value, dtype="<i8").tobytes() for value in arrays.values())
    return _PREFIX.pack(len(text), len(blob)) + text + blob


def unpack(text: bytes, blob: bytes) -> dict[str, Any]:
    """Inverse of `pack`. Raises ValueError for anything malformed."""
    head = json.loads(text)
    if not isinstance(head, dict) or not isinstance(head.get("arrays"), dict):
        raise ValueError("message is not an object")
    offset = 0
    for name, length in head.pop("arrays").items():
        head[name] = np.frombuffer(blob, dtype="<i8", count=length, offset=offset).astype(np.int64)
        offset += 8 * length
    return head


class Receiver:
    """Reads messages from a pipe, optionally against a deadline, while passing on what arrives on `also`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = bytearray()

    def receive(
        self, timeout_s: float | None = None, also: int | None = None, sink: Sink | None = None
    ) -> dict[str, Any]:
        """Next message. Raises TimeoutError, ChannelClosed, ValueError (nonsense).

        `also` is a second file descriptor (the child's stderr) whose bytes go to `sink(bytes)` meanwhile.
        """
        stop = None if timeout_s is None else time.monotonic() + timeout_s
        poll = select.poll()
        for fd in (self.fd,) if also is None else (self.fd, also):
            poll.register(fd, select.POLLIN)
        while True:
            message = self._complete()
            if message is not None:
                return message
            left_ms = None if stop is None else max(0.0, stop - time.monotonic()) * 1000
            ready = [fd for fd, _ in poll.poll(left_ms)]
            if not ready:
                raise TimeoutError
            if also in ready and also is not None and sink is not None:
                text = os.read(also, 1 << 16)
                sink(text)
                if not text:
                    poll.unregister(also)
            if self.fd in ready:
                data = os.read(self.fd, 1 << 20)
                if not data:
                    raise ChannelClosed
                self._buffer += data

    def _complete(self) -> dict[str, Any] | None:
        if len(self._buffer) < _PREFIX.size:
            return None
        text_size, blob_size = _PREFIX.unpack_from(self._buffer)
        if text_size + blob_size > MAX_MESSAGE:
            raise ValueError("message too long")
        stop = _PREFIX.size + text_size + blob_size
        if len(self._buffer) < stop:
            return None
        middle = _PREFIX.size + text_size
        message = unpack(bytes(self._buffer[_PREFIX.size : middle]), bytes(self._buffer[middle:stop]))
        del self._buffer[:stop]
        return message


def send(fd: int, head: Mapping[str, Any]) -> None:
    """Writes one message. Raises ChannelClosed if nobody listens."""
    data = memoryview(pack(head))
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BrokenPipeError:
        raise ChannelClosed from None
